//! Rows or shapes: which of the two a lane's payload needs fewer bytes in.

use zstd_safe::CCtx;

use crate::batch::{Batch, length};

/// How keys and values are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Key and value of each record side by side.
    Rows,
    /// In columns, by shapes.
    Shapes,
}

/// Decides by trial: a stretch of parcels is laid out both ways, and each compressed alone. What was smaller is used
/// until the next trial. Trials grow apart, from 4 parcels to 128, while they find the same.
///
/// A lane that begins to carry text where it carried something else, or the other way round, is tried at once.
///
/// A trial goes out by shapes whatever it finds, so that shapes and columns are there when they begin to pay.
pub(crate) struct Trials {
    layout: Layout,
    interval: u32,
    left: u32,
    /// Whether values were text mostly.
    text: bool,
    /// The stretch so far, both ways, and what shapes had to define in it.
    rows: Vec<u8>,
    shapes: Vec<u8>,
    definitions: usize,
    /// Most records of a parcel in it had no shape.
    most_whole: bool,
    context: Option<CCtx<'static>>,
    compressed: Vec<u8>,
}

impl Trials {
    pub(crate) fn new() -> Self {
        Self {
            layout: Layout::Shapes,
            interval: FIRST_INTERVAL,
            left: 0,
            text: true,
            rows: Vec::new(),
            shapes: Vec::new(),
            definitions: 0,
            most_whole: false,
            context: None,
            compressed: Vec::new(),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.rows.capacity()
            + self.shapes.capacity()
            + self.compressed.capacity()
            + self.context.as_ref().map_or(0, CCtx::sizeof)
    }

    /// Something is new that a trial might find better: it is held with the next parcel.
    pub(crate) fn again(&mut self) {
        (self.left, self.interval) = (0, FIRST_INTERVAL);
    }

    /// A parcel could not be laid out by shapes.
    pub(crate) fn unfit(&mut self) {
        (self.layout, self.left, self.interval) = (Layout::Rows, FIRST_INTERVAL, FIRST_INTERVAL);
        self.begin();
    }

    /// Layout of the next parcel, and whether [`compare`](Self::compare) wants to see both.
    pub(crate) fn next(&mut self, batch: &Batch) -> (Layout, bool) {
        if batch.record_count() == 0 {
            return (Layout::Rows, false);
        }
        let text = is_text(batch).unwrap_or(self.text);
        if text != self.text {
            (self.text, self.left, self.interval) = (text, 0, FIRST_INTERVAL);
        }
        if self.left == 0 {
            return (Layout::Shapes, true);
        }
        self.left -= 1;
        (self.layout, false)
    }

    /// Learns how a parcel's payload lies both ways. Of the shapes, `definitions` bytes are paid once and for all;
    /// `most_whole`: most records have none.
    pub(crate) fn compare(
        &mut self,
        rows: impl FnOnce(&mut Vec<u8>),
        (shapes, definitions, most_whole): (&[u8], usize, bool),
    ) {
        rows(&mut self.rows);
        self.shapes.extend_from_slice(shapes);
        self.definitions += definitions;
        self.most_whole |= most_whole;
        if self.rows.len() < EVIDENCE {
            return;
        }
        let context = self.context.get_or_insert_with(CCtx::create);
        let by_rows = size(context, &self.rows, &mut self.compressed);
        let by_shapes = size(context, &self.shapes, &mut self.compressed);
        // Text of shapes compresses about as rows do.
        let once = self.definitions as u64 * by_rows / self.rows.len() as u64;
        // Of records as they are, a higher level and a longer memory make more where they lie together.
        let margin = if self.most_whole { by_rows / MARGIN } else { 0 };
        let is_smaller = by_shapes.saturating_sub(once) <= by_rows - margin;
        let layout = if is_smaller { Layout::Shapes } else { Layout::Rows };
        self.interval =
            if layout == self.layout { (self.interval * 2).min(LAST_INTERVAL) } else { FIRST_INTERVAL };
        self.layout = layout;
        self.left = self.interval;
        self.begin();
    }

    /// Begins a stretch.
    fn begin(&mut self) {
        (self.definitions, self.most_whole) = (0, false);
        for bytes in [&mut self.rows, &mut self.shapes, &mut self.compressed] {
            bytes.clear();
            bytes.shrink_to(KEEP);
        }
    }
}

fn size(context: &mut CCtx<'static>, bytes: &[u8], compressed: &mut Vec<u8>) -> u64 {
    compressed.clear();
    compressed.reserve(zstd_safe::compress_bound(bytes.len()));
    // What cannot be compressed counts as it is.
    context.compress(compressed, bytes, LEVEL).unwrap_or(bytes.len()) as u64
}

/// Whether most values begin with text, in a sample; none without values.
fn is_text(batch: &Batch) -> Option<bool> {
    let (mut sampled, mut text) = (0, 0);
    for group in &batch.groups {
        for meta in group.records.iter().step_by(group.records.len() / SAMPLED + 1) {
            let start = meta.start as usize + length(meta.key);
            let value = &batch.arena[start..start + length(meta.value).min(BEGINNING)];
            sampled += usize::from(!value.is_empty());
            text += usize::from(!value.is_empty() && value.iter().all(|&byte| byte >= b' ' || byte == b'\t'));
        }
        if sampled >= SAMPLED * 4 {
            break;
        }
    }
    (sampled > 0).then_some(text * 2 > sampled)
}

/// Records of a group that are looked at, and bytes of each.
const SAMPLED: usize = 4;
const BEGINNING: usize = 24;
const FIRST_INTERVAL: u32 = 4;
const LAST_INTERVAL: u32 = 128;
/// Bytes of rows that a judgement is made on: small parcels are gathered.
const EVIDENCE: usize = 96 * 1024;
/// Where most records have no shape, shapes must save so large a part of the rows.
const MARGIN: u64 = 64;
const KEEP: usize = 512 * 1024;
const LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(value: &[u8]) -> Batch {
        let mut batch = Batch::new();
        let group = batch.group_index(0);
        batch.push(group, 0, 0, None, Some(value), []);
        batch
    }

    fn trial(trials: &mut Trials, rows: &[u8], shapes: &[u8]) -> u32 {
        let text = batch(b"text");
        assert_eq!(trials.next(&text), (Layout::Shapes, true));
        trials.compare(|out| out.extend_from_slice(rows), (shapes, 0, false));
        let mut until_next = 0;
        while trials.left > 0 {
            assert_eq!(trials.next(&text), (trials.layout, false));
            until_next += 1;
        }
        until_next
    }

    fn numbers(count: u64) -> Vec<u8> {
        (0..count).flat_map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8).to_le_bytes()).collect()
    }

    #[test]
    fn the_smaller_layout_is_used_and_trials_grow_apart() {
        let mut trials = Trials::new();
        let (small, large) = (numbers(13_000), numbers(20_000));
        let intervals: Vec<u32> = (0..7).map(|_| trial(&mut trials, &large, &small)).collect();
        assert_eq!((trials.layout, intervals), (Layout::Shapes, vec![8, 16, 32, 64, 128, 128, 128]));
        assert_eq!((trial(&mut trials, &small, &large), trials.layout), (4, Layout::Rows));
        assert_eq!((trial(&mut trials, &small, &large), trials.layout), (8, Layout::Rows));
        assert_eq!((trial(&mut trials, &large, &small), trials.layout), (4, Layout::Shapes));
    }

    #[test]
    fn small_parcels_are_gathered_until_there_is_evidence() {
        let (mut trials, text) = (Trials::new(), batch(b"text"));
        for _ in 0..50 {
            assert_eq!(trials.next(&text), (Layout::Shapes, true));
            trials.compare(|out| out.extend_from_slice(&numbers(100)), (&numbers(200), 0, false));
        }
        assert_eq!(trials.next(&text), (Layout::Shapes, true));
        (0..100).for_each(|_| {
            trials.compare(|out| out.extend_from_slice(&numbers(100)), (&numbers(200), 0, false))
        });
        assert_eq!(trials.next(&text), (Layout::Rows, false));
        assert_eq!(trials.next(&Batch::new()), (Layout::Rows, false));
    }

    #[test]
    fn text_after_something_else_is_tried_at_once() {
        let mut trials = Trials::new();
        trial(&mut trials, &numbers(13_000), &numbers(20_000));
        assert_eq!(trials.next(&batch(b"\0binary")), (Layout::Shapes, true));
        trials.compare(|out| out.extend_from_slice(&numbers(13_000)), (&numbers(20_000), 0, false));
        assert_eq!(trials.next(&batch(b"\0binary")), (Layout::Rows, false));
        assert_eq!(trials.next(&batch(b"text")), (Layout::Shapes, true));
    }
}
