//! How a value is compressed again.

use super::matcher::{Matcher, is_level};
use super::member::{Wrapper, parts};
use super::token::{MAX_MATCH, MIN_MATCH, Token};
use super::trees::{Trees, Writer};

/// What all values of a run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manner {
    /// zlib's level, 1 to 9, perhaps [`BY_FOUR`](super::matcher::BY_FOUR).
    pub(super) level: u8,
    /// Tokens after which a block is full.
    pub(super) block: u32,
}

/// A token that zlib would not have chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Correction {
    /// Tokens between the correction before and this one.
    pub(super) gap: u32,
    pub(super) token: Token,
}

impl Manner {
    pub(super) fn is_sound(self) -> bool {
        is_level(self.level) && BLOCKS.contains(&self.block)
    }
}

/// Blocks of zlib have 16,383 tokens at its usual setting, as few as 127 and as many as 32,767 at others.
pub(super) const BLOCKS: std::ops::RangeInclusive<u32> = 64..=1 << 17;
/// The usual one.
pub(super) const USUAL_BLOCK: u32 = (1 << 14) - 1;

/// Tokens for which memory is kept.
pub(super) const KEPT_TOKENS: usize = 1 << 18;

/// What compressing takes, to be used again and again.
#[derive(Debug)]
pub(super) struct Press {
    matcher: Matcher,
    trees: Trees,
    pub(super) tokens: Vec<Token>,
}

impl Press {
    pub(super) fn new() -> Self {
        Self { matcher: Matcher::new(), trees: Trees::new(), tokens: Vec::new() }
    }

    pub(super) fn memory(&self) -> usize {
        self.matcher.memory() + self.tokens.capacity() * size_of::<Token>()
    }

    /// Where `tokens`, which stand for `plain`, are not what zlib finds. Nothing if that is in more than `most` places.
    pub(super) fn differences(
        &mut self,
        plain: &[u8],
        tokens: &[Token],
        level: u8,
        most: usize,
    ) -> Option<Vec<Correction>> {
        let mut predictor = self.matcher.predict(plain, level);
        let (mut corrections, mut gap) = (Vec::new(), 0);
        for token in tokens {
            if predictor.next()? == *token {
                gap += 1;
            } else {
                if corrections.len() == most {
                    return None;
                }
                corrections.push(Correction { gap, token: *token });
                gap = 0;
            }
            predictor.take(*token);
        }
        Some(corrections)
    }

    /// Appends the value that has this header and holds `plain`. Nothing for what cannot be, or should not.
    pub(super) fn close(
        &mut self,
        plain: &[u8],
        header: &[u8],
        manner: Manner,
        corrections: &[Correction],
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let wrapper = wrapper_of(header)?;
        out.extend_from_slice(header);
        let tokens = std::mem::take(&mut self.tokens);
        let closed = self.stream(plain, manner, corrections, tokens, out);
        closed.then(|| wrapper.put_trailer(plain, out))
    }

    fn stream(
        &mut self,
        plain: &[u8],
        manner: Manner,
        corrections: &[Correction],
        mut tokens: Vec<Token>,
        out: &mut Vec<u8>,
    ) -> bool {
        tokens.clear();
        let mut writer = Writer::new(out);
        let done = self.predict(plain, manner.level, corrections, &mut tokens).is_some()
            && self.blocks(plain, &tokens, manner.block as usize, &mut writer);
        writer.end();
        tokens.clear();
        tokens.shrink_to(KEPT_TOKENS);
        self.tokens = tokens;
        done
    }

    fn predict(
        &mut self,
        plain: &[u8],
        level: u8,
        corrections: &[Correction],
        tokens: &mut Vec<Token>,
    ) -> Option<()> {
        let mut predictor = self.matcher.predict(plain, level);
        let mut corrections = corrections.iter();
        let mut next = corrections.next();
        let mut gap = 0;
        while !predictor.is_at_end() {
            let mut token = predictor.next()?;
            match next {
                Some(correction) if correction.gap == gap => {
                    token = correction.token;
                    if !is_possible(token, predictor.at(), plain.len()) {
                        return None;
                    }
                    (next, gap) = (corrections.next(), 0);
                }
                _ => gap += 1,
            }
            tokens.push(token);
            predictor.take(token);
        }
        next.is_none().then_some(())
    }

    /// Blocks are as long as zlib makes them: a full one is closed at once, the last one when there is nothing more.
    fn blocks(&mut self, plain: &[u8], tokens: &[Token], full: usize, out: &mut Writer<'_>) -> bool {
        let (mut rest, mut at) = (tokens, 0);
        loop {
            let (block, others) = rest.split_at(rest.len().min(full));
            let bytes: usize = block.iter().map(|token| token.bytes()).sum();
            let last = block.len() < full;
            if !self.trees.block(block, &plain[at..at + bytes], last, out) {
                return false;
            }
            (rest, at) = (others, at + bytes);
            if last {
                return true;
            }
        }
    }
}

/// Whether a token can stand at `at` of `length` bytes.
fn is_possible(token: Token, at: usize, length: usize) -> bool {
    let (long, far) = (usize::from(token.length), usize::from(token.distance));
    token == Token::LITERAL
        || (MIN_MATCH..=MAX_MATCH).contains(&long)
            && long <= length - at
            && (1..=at.min(1 << 15)).contains(&far)
}

/// The kind of a header that is whole.
pub(super) fn wrapper_of(header: &[u8]) -> Option<Wrapper> {
    // A value is looked for behind the header: any bytes will do.
    let mut value = [0; super::member::MAX_HEADER + 40];
    value.get_mut(..header.len())?.copy_from_slice(header);
    let parts = parts(&value)?;
    (parts.header.len() == header.len()).then_some(parts.wrapper)
}
