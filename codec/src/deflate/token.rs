//! What a deflate stream consists of.

/// A literal byte, or a copy of what stands `distance` bytes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// 3 to 258, or 0 of a literal.
    pub(super) length: u16,
    /// 1 to 32,768, or 0 of a literal.
    pub(super) distance: u16,
}

impl Token {
    pub(super) const LITERAL: Self = Self { length: 0, distance: 0 };

    /// Bytes that it stands for.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        usize::from(self.length.max(1))
    }
}

pub(super) const MIN_MATCH: usize = 3;
pub(super) const MAX_MATCH: usize = 258;

/// Least length of each length code, and its extra bits (RFC 1951, 3.2.5).
pub(super) const LENGTHS: [(u16, u8); 29] = [
    (3, 0),
    (4, 0),
    (5, 0),
    (6, 0),
    (7, 0),
    (8, 0),
    (9, 0),
    (10, 0),
    (11, 1),
    (13, 1),
    (15, 1),
    (17, 1),
    (19, 2),
    (23, 2),
    (27, 2),
    (31, 2),
    (35, 3),
    (43, 3),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 4),
    (115, 4),
    (131, 5),
    (163, 5),
    (195, 5),
    (227, 5),
    (258, 0),
];

/// Least distance of each distance code, and its extra bits.
pub(super) const DISTANCES: [(u16, u8); 30] = [
    (1, 0),
    (2, 0),
    (3, 0),
    (4, 0),
    (5, 1),
    (7, 1),
    (9, 2),
    (13, 2),
    (17, 3),
    (25, 3),
    (33, 4),
    (49, 4),
    (65, 5),
    (97, 5),
    (129, 6),
    (193, 6),
    (257, 7),
    (385, 7),
    (513, 8),
    (769, 8),
    (1025, 9),
    (1537, 9),
    (2049, 10),
    (3073, 10),
    (4097, 11),
    (6145, 11),
    (8193, 12),
    (12289, 12),
    (16385, 13),
    (24577, 13),
];

/// The code of a length.
#[inline]
pub(super) fn length_code(length: u16) -> usize {
    usize::from(LENGTH_CODES[usize::from(length) - MIN_MATCH])
}

/// The code of a distance.
#[inline]
pub(super) fn distance_code(distance: u16) -> usize {
    match distance - 1 {
        0..4 => usize::from(distance - 1),
        above => {
            let bits = above.ilog2();
            2 * bits as usize + usize::from(above >> (bits - 1) & 1)
        }
    }
}

static LENGTH_CODES: [u8; MAX_MATCH - MIN_MATCH + 1] = {
    let mut codes = [0; MAX_MATCH - MIN_MATCH + 1];
    let mut code = 0;
    while code < LENGTHS.len() {
        let mut length = LENGTHS[code].0 as usize;
        while length <= MAX_MATCH {
            codes[length - MIN_MATCH] = code as u8;
            length += 1;
        }
        code += 1;
    }
    codes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_whose_ranges_hold_the_number() {
        for length in MIN_MATCH as u16..=MAX_MATCH as u16 {
            let code = LENGTHS.iter().rposition(|(least, _)| *least <= length).expect("from 3 on");
            assert_eq!(length_code(length), code);
        }
        for distance in 1..=32_768u16 {
            let code = DISTANCES.iter().rposition(|(least, _)| *least <= distance).expect("from 1 on");
            assert_eq!(distance_code(distance), code, "{distance}");
        }
    }
}
