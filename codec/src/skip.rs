//! When to leave zstd out: payloads that are compressed or encrypted already only cost time there.

/// Watches how well a lane compresses and decides which parcels go as they are.
///
/// While recent parcels kept more than 95 % of their size, the next ones skip zstd; one is tried again after 4
/// parcels, then after 8, up to 64. A parcel whose bytes are unevenly spread, as text is, is tried at once.
#[derive(Debug)]
pub(crate) struct Skip {
    /// Serialized and coded bytes of what was compressed, older parcels fading.
    serialized: u64,
    coded: u64,
    interval: u32,
    left: u32,
}

impl Skip {
    pub(crate) fn new() -> Self {
        Self { serialized: 0, coded: 0, interval: FIRST_INTERVAL, left: 0 }
    }

    /// Whether this parcel goes without zstd.
    pub(crate) fn next(&mut self, serialized: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        if is_uneven(serialized) {
            self.left = 0;
            self.interval = FIRST_INTERVAL;
            return false;
        }
        self.left -= 1;
        true
    }

    /// Learns what zstd made of a parcel.
    pub(crate) fn compressed(&mut self, serialized: usize, coded: usize) {
        self.serialized = self.serialized - self.serialized / 4 + serialized as u64;
        self.coded = self.coded - self.coded / 4 + coded as u64;
        if self.coded * 100 <= self.serialized * 95 {
            self.interval = FIRST_INTERVAL;
        } else if self.serialized >= EVIDENCE {
            self.left = self.interval;
            self.interval = (self.interval * 2).min(LAST_INTERVAL);
        }
    }
}

/// Whether some byte values are clearly more frequent than others, in a sample from all over `bytes`.
fn is_uneven(bytes: &[u8]) -> bool {
    let mut counts = [0u64; 256];
    let mut sampled = 0;
    for run in bytes.chunks((bytes.len() / RUNS).max(RUN)) {
        for byte in run.iter().take(RUN) {
            counts[usize::from(*byte)] += 1;
            sampled += 1;
        }
    }
    // Pairs of equal bytes: n + n (n - 1) / 256 when all values are as likely.
    let pairs: u64 = counts.iter().map(|count| count * count).sum();
    let even = sampled + sampled * sampled / 256;
    pairs * 2 > even * 3
}

const FIRST_INTERVAL: u32 = 4;
const LAST_INTERVAL: u32 = 64;
/// Serialized bytes before a judgement: small parcels cost no time worth saving.
const EVIDENCE: u64 = 128 * 1024;
/// The sample: this many runs of this many bytes.
const RUNS: usize = 64;
const RUN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn trials_grow_apart_and_are_bounded() {
        let (mut skip, noise) = (Skip::new(), noise(256 * 1024));
        let mut runs = Vec::new();
        for _ in 0..8 {
            assert!(!skip.next(&noise));
            skip.compressed(noise.len(), noise.len() + 20);
            let mut run = 0;
            while skip.left > 0 {
                assert!(skip.next(&noise));
                run += 1;
            }
            runs.push(run);
        }
        assert_eq!(runs, [4, 8, 16, 32, 64, 64, 64, 64]);
    }

    #[test]
    fn text_ends_the_skipping_at_once() {
        let mut skip = Skip::new();
        skip.compressed(256 * 1024, 256 * 1024);
        assert!(skip.next(&noise(5000)));
        assert!(!skip.next(b"{\"id\":17,\"name\":\"a text as any other\"}".repeat(50).as_slice()));
        assert!(!skip.next(&noise(5000)));
    }

    #[test]
    fn small_or_compressible_parcels_never_skip() {
        let mut skip = Skip::new();
        skip.compressed(100, 120);
        assert!(!skip.next(&noise(5000)));
        for _ in 0..100 {
            skip.compressed(256 * 1024, 240 * 1024);
            assert!(!skip.next(&noise(5000)));
        }
    }

    #[test]
    fn base64_is_uneven_and_noise_of_any_length_is_not() {
        let base64: Vec<u8> = noise(10_000).iter().map(|byte| b'0' + (byte & 63)).collect();
        assert!(is_uneven(&base64));
        assert!([1000, 1024, 4000, 65_537, 300_000].iter().all(|length| !is_uneven(&noise(*length))));
    }
}
