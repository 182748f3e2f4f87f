//! The tokens that zlib finds in plain bytes, at each of its levels.
//!
//! It is zlib's search (`deflate.c`: hash chains, lazy evaluation, and where it gives up) rather than a good one: what
//! it finds must be what zlib found. A stream that differs here and there is still predicted from there on, so that only
//! the differences need to be told.

use super::token::{MAX_MATCH, MIN_MATCH, Token};

/// What a level of zlib looks for.
#[derive(Debug, Clone, Copy)]
struct Level {
    /// A match of this length makes the next search short.
    good: usize,
    /// A match of this length is not searched beyond; at the fast levels, the longest whose inside is remembered.
    lazy: usize,
    /// A match of this length ends a search.
    nice: usize,
    /// Most candidates of a search.
    chain: usize,
    /// Whether a match waits for a longer one at the next byte.
    waits: bool,
}

const fn level(good: usize, lazy: usize, nice: usize, chain: usize, waits: bool) -> Level {
    Level { good, lazy, nice, chain, waits }
}

/// Levels from 1 to 9.
const LEVELS: [Level; 9] = [
    level(4, 4, 8, 4, false),
    level(4, 5, 16, 8, false),
    level(4, 6, 32, 32, false),
    level(4, 4, 16, 16, true),
    level(8, 16, 32, 32, true),
    level(8, 16, 128, 128, true),
    level(8, 32, 128, 256, true),
    level(32, 128, 258, 1024, true),
    level(32, 258, 258, 4096, true),
];

/// Added to a level: matches are found by four bytes that are the same, not by three, so that those of three bytes are
/// rare. It is how Chromium's zlib searches, which Node has too.
pub(super) const BY_FOUR: u8 = 0x10;

/// Whether there is such a level.
pub(super) fn is_level(level: u8) -> bool {
    (1..=LEVELS.len() as u8).contains(&(level & !BY_FOUR))
}

/// Hash chains, used for one piece of plain bytes after the other.
#[derive(Debug)]
pub(super) struct Matcher {
    /// Where bytes with a hash stood last: above `base`. What is not above it is of earlier pieces, or the first byte,
    /// which zlib does not find either.
    heads: Vec<u32>,
    /// The one before with the same hash, by position.
    before: Vec<u32>,
    base: u32,
}

impl Matcher {
    pub(super) fn new() -> Self {
        Self { heads: vec![0; HASHES], before: vec![0; WINDOW], base: 0 }
    }

    pub(super) fn memory(&self) -> usize {
        (self.heads.capacity() + self.before.capacity()) * 4
    }

    /// Begins with a piece of plain bytes. `level` is 1 to 9, perhaps [`BY_FOUR`].
    pub(super) fn predict<'a>(&'a mut self, plain: &'a [u8], level: u8) -> Predictor<'a> {
        let by_four = level & BY_FOUR != 0;
        let level = LEVELS[usize::from(level & !BY_FOUR).clamp(1, LEVELS.len()) - 1];
        let work = WORK_PER_BYTE * plain.len() + LEAST_WORK;
        Predictor { matcher: self, plain, level, by_four, at: 0, known: 0, bottom: 0, waiting: None, work }
    }
}

/// Goes through plain bytes token by token.
#[derive(Debug)]
pub(super) struct Predictor<'a> {
    matcher: &'a mut Matcher,
    plain: &'a [u8],
    level: Level,
    by_four: bool,
    at: usize,
    /// Bytes below this are in the chains.
    known: usize,
    /// Where zlib's window begins.
    bottom: usize,
    /// The match that was found at this byte while the one before waited.
    waiting: Option<Token>,
    /// Candidates that may still be looked at.
    work: usize,
}

impl Predictor<'_> {
    pub(super) fn is_at_end(&self) -> bool {
        self.at == self.plain.len()
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The token that zlib would choose. Nothing if that took more work than any sound stream is worth.
    pub(super) fn next(&mut self) -> Option<Token> {
        let here = match self.waiting.take() {
            Some(token) => token,
            None => self.find(self.at, MIN_MATCH - 1),
        };
        if self.work == 0 {
            return None;
        }
        let length = usize::from(here.length);
        if length < MIN_MATCH {
            return Some(Token::LITERAL);
        }
        if self.level.waits && length < self.level.lazy {
            let there = self.find(self.at + 1, length);
            if there.length > here.length {
                self.waiting = Some(there);
                return Some(Token::LITERAL);
            }
        }
        Some(here)
    }

    /// Goes on behind `token`, be it the one that was predicted or another. It must not reach beyond the end.
    pub(super) fn take(&mut self, token: Token) {
        if token.length != 0 {
            self.waiting = None;
        }
        let next = self.at + token.bytes();
        let remembered = self.level.waits
            || token.length == 0
            || usize::from(token.length) <= self.level.lazy && self.plain.len() - next >= MIN_MATCH;
        if remembered {
            (self.known..next).for_each(|at| self.remember(at));
        } else {
            self.remember_once(self.at);
        }
        self.known = self.known.max(next);
        self.at = next;
        // As one call with all of the bytes fills the window.
        if self.at - self.bottom > 2 * WINDOW - MIN_LOOKAHEAD && self.plain.len() > self.bottom + 2 * WINDOW {
            self.bottom += WINDOW;
        }
    }

    fn remember_once(&mut self, at: usize) {
        if self.known <= at {
            self.remember(at);
        }
    }

    /// Puts a byte into its chain, if there are enough behind it.
    #[inline]
    fn remember(&mut self, at: usize) {
        let Some([a, b, c]) = self.plain.get(at..).and_then(<[u8]>::first_chunk) else { return };
        let hash = if self.by_four {
            // Behind the end there are zeros.
            let word = u32::from_le_bytes([*a, *b, *c, self.plain.get(at + 3).copied().unwrap_or(0)]);
            (word.wrapping_mul(MIX).wrapping_add(MIX) >> 16) as usize & (HASHES - 1)
        } else {
            (usize::from(*a) << 10 ^ usize::from(*b) << 5 ^ usize::from(*c)) & (HASHES - 1)
        };
        let head = &mut self.matcher.heads[hash];
        self.matcher.before[at & (WINDOW - 1)] = *head;
        *head = self.matcher.base + at as u32;
    }

    /// The longest match at `at` that is longer than `least`; a literal if there is none.
    fn find(&mut self, at: usize, least: usize) -> Token {
        let ahead = self.plain.len() - at;
        if ahead < MIN_MATCH {
            return Token::LITERAL;
        }
        (self.known..=at).for_each(|at| self.remember(at));
        self.known = self.known.max(at + 1);
        let longest = ahead.min(MAX_MATCH);
        let nice = self.level.nice.min(ahead);
        let lowest = self.matcher.base as usize + at.saturating_sub(FARTHEST).max(self.bottom);
        let mut left = if least >= self.level.good { self.level.chain >> 2 } else { self.level.chain };
        let mut candidate = self.matcher.before[at & (WINDOW - 1)] as usize;
        // The first candidate may be as far away as can be, the others not.
        let first = lowest - usize::from(at >= FARTHEST && at - FARTHEST > self.bottom);
        if candidate <= first || least >= longest {
            return Token::LITERAL;
        }
        let (mut best, mut from) = (least, 0);
        loop {
            let start = candidate - self.matcher.base as usize;
            self.work = self.work.saturating_sub(1);
            if self.plain[start + best] == self.plain[at + best] {
                let length = common(self.plain, start, at, longest);
                if length > best {
                    (best, from) = (length, start);
                    if length >= nice {
                        break;
                    }
                }
            }
            candidate = self.matcher.before[start & (WINDOW - 1)] as usize;
            left = left.saturating_sub(1);
            if candidate <= lowest || left == 0 || self.work == 0 {
                break;
            }
        }
        let distance = at - from;
        if best == least || self.level.waits && best == MIN_MATCH && distance > TOO_FAR {
            return Token::LITERAL;
        }
        Token { length: best as u16, distance: distance as u16 }
    }
}

impl Drop for Predictor<'_> {
    /// What is in the chains is of no more use.
    fn drop(&mut self) {
        let matcher = &mut self.matcher;
        let next = matcher.base as usize + self.plain.len() + 1;
        if next > u32::MAX as usize / 2 {
            matcher.heads.fill(0);
            matcher.base = 0;
        } else {
            matcher.base = next as u32;
        }
    }
}

/// How many bytes from `left` and from `right` on are the same, `most` at most. `left` is before `right`.
#[inline]
fn common(bytes: &[u8], left: usize, right: usize, most: usize) -> usize {
    let (left, right) = (&bytes[left..left + most], &bytes[right..right + most]);
    let mut at = 0;
    while let (Some(a), Some(b)) = (left[at..].first_chunk::<8>(), right[at..].first_chunk::<8>()) {
        let differ = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if differ != 0 {
            return at + differ.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    at + left[at..].iter().zip(&right[at..]).take_while(|(a, b)| a == b).count()
}

const HASHES: usize = 1 << 15;
/// Of Chromium's hash.
const MIX: u32 = 66_521;
pub(super) const WINDOW: usize = 1 << 15;
/// Bytes that zlib wants to see ahead.
const MIN_LOOKAHEAD: usize = MAX_MATCH + MIN_MATCH + 1;
const FARTHEST: usize = WINDOW - MIN_LOOKAHEAD;
/// The shortest matches are not worth more distance than this.
const TOO_FAR: usize = 4096;
/// Candidates that are looked at, over all of a stream: above what sound data needs, so that a stream made to be slow is
/// not taken.
const WORK_PER_BYTE: usize = 256;
const LEAST_WORK: usize = 1 << 16;
