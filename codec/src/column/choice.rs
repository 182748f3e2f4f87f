//! How a column is coded, and how that is written.

use std::sync::Arc;

use super::binary::Binary;
use super::copy::Original;
use super::decimal::DecimalShape;
use super::number::{self, Coding, Predictor};
use super::packed::Packing;
use super::pattern::Pattern;
use super::time::TimeShape;
use super::{ColumnFault, MAX_COLUMNS, MAX_CONSTANT, Values};
use crate::Error;
use crate::varint::{Reader, put};

/// Kinds of columns, as the registry of the crate has them.
mod kind {
    pub(super) const CONSTANT: u8 = 0x40;
    pub(super) const TEXT: u8 = 0x41;
    pub(super) const LENGTHS: u8 = 0x42;
    pub(super) const INTEGERS: u8 = 0x43;
    pub(super) const TIMES: u8 = 0x44;
    pub(super) const DECIMALS: u8 = 0x45;
    pub(super) const PACKED: u8 = 0x46;
    pub(super) const PATTERN: u8 = 0x47;
    pub(super) const DICTIONARY: u8 = 0x48;
    pub(super) const COPY: u8 = 0x49;
    pub(super) const RECURRING: u8 = 0x4a;
    pub(super) const BINARY: u8 = 0x4b;
    pub(super) const FRAMED_DICTIONARY: u8 = 0x4c;
    pub(super) const FRAMED_RECURRING: u8 = 0x4d;
}

/// Marks a change that is for this parcel only.
pub(super) const ONCE: u8 = 0x80;
/// The id of a value that its dictionary did not take.
pub(super) const KEY_UNKNOWN: u32 = 0;
/// Flags of a change.
const QUOTED: u8 = 1;
const ORDERED: u8 = 2;
pub(super) const EXCEPTED: u8 = 4;
const KEPT: u8 = 8;

/// How long a change is for, and what it leaves of what the column remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is for this parcel only, and leaves everything alone.
    Once,
    /// The column begins anew.
    Afresh,
    /// Entries of its dictionary stay; and everything, if the kind does.
    Kept,
}

/// How a column is coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    /// Quotes around all values are left out.
    pub(super) quoted: bool,
    /// Values that are no such numbers stand before the others, as they are.
    pub(super) excepted: bool,
    /// Values are ordered by the ids of this earlier dictionary column.
    pub(super) order: Option<u32>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// All values are this one, quotes and all.
    Constant(Arc<[u8]>),
    /// One value a line.
    Text,
    /// Lengths, then bytes.
    Lengths,
    /// Numbers in a spelling, by their difference from what is expected.
    Numbers(Spelling, Predictor, Coding),
    /// Digits of a wider alphabet, as bytes.
    Packed(Packing),
    /// Text around runs of digits.
    Pattern(Arc<Pattern>),
    Dictionary {
        /// Ids take two bytes.
        wide: bool,
        /// New entries are behind their length, not on a line.
        framed: bool,
    },
    /// The last value for the same entry of an earlier dictionary column, or of the row before, but for exceptions.
    /// If the last is set, new entries are behind their length.
    Recurring(Option<u32>, bool),
    /// Values of an earlier column, perhaps with text around them, but for exceptions.
    Copy(Arc<Original>),
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    Integer,
    Time(TimeShape),
    Decimal(DecimalShape),
    Binary(Binary),
}

impl Spelling {
    /// Whether decimals are counted apart here, while there one unit serves values with unlike numbers of them.
    pub(super) fn is_rival_of(self, other: Self) -> bool {
        let (Self::Decimal(counted), Self::Decimal(other)) = (self, other) else { return false };
        counted.is_counted() && other.varies()
    }

    pub(super) fn is_binary(self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// Whether there are rows without a number, whose marks stand before the numbers.
    pub(super) fn is_optional(self) -> bool {
        matches!(self, Self::Binary(shape) if shape.is_optional())
    }
}

/// What a column is before it was ever said to be something else.
impl Default for Choice {
    fn default() -> Self {
        Self::plain(Kind::Text)
    }
}

impl Choice {
    /// Whether this many values have a part in the parcel's tail.
    pub(super) fn has_tail(&self, count: usize) -> bool {
        matches!(self.kind, Kind::Numbers(_, _, coding) if coding.has_tail(count))
    }

    /// Whether entries of the other's dictionary can stay.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let framed = |kind: &Kind| matches!(kind, Kind::Dictionary { framed: true, .. });
        self.quoted == other.quoted && framed(&self.kind) == framed(&other.kind)
    }

    pub(super) fn plain(kind: Kind) -> Self {
        Self::of(false, kind)
    }

    pub(super) fn of(quoted: bool, kind: Kind) -> Self {
        Self { quoted, excepted: false, order: None, kind }
    }

    /// The values as this kind takes them, without their quotes if they are left out. None if one has no quotes and may
    /// not be an exception.
    pub(super) fn bare<'a>(&self, values: Values<'a>) -> Option<Values<'a>> {
        match self.quoted {
            true if self.excepted => Some(Values { strip: 1, ..values }),
            true => values.stripped(),
            false => Some(values),
        }
    }

    /// The same with exceptions, if there can be some and are none yet.
    pub(super) fn with_exceptions(&self) -> Option<Self> {
        let numbers = matches!(self.kind, Kind::Numbers(spelling, ..) if !spelling.is_binary());
        (numbers && !self.excepted).then(|| Self { excepted: true, ..self.clone() })
    }

    /// Whether both are the same but for exceptions: what a column remembers stays then.
    pub(super) fn is_but_for_exceptions(&self, other: &Self) -> bool {
        self.quoted == other.quoted && self.order == other.order && self.kind == other.kind
    }

    /// Whether values are looked up in a dictionary.
    pub(super) fn has_entries(&self) -> bool {
        matches!(self.kind, Kind::Dictionary { .. } | Kind::Recurring(..))
    }

    /// Appends a change to this choice.
    pub(super) fn put(&self, change: Change, out: &mut Vec<u8>) {
        let kind = match &self.kind {
            Kind::Constant(_) => kind::CONSTANT,
            Kind::Text => kind::TEXT,
            Kind::Lengths => kind::LENGTHS,
            Kind::Numbers(Spelling::Integer, ..) => kind::INTEGERS,
            Kind::Numbers(Spelling::Time(_), ..) => kind::TIMES,
            Kind::Numbers(Spelling::Decimal(_), ..) => kind::DECIMALS,
            Kind::Numbers(Spelling::Binary(_), ..) => kind::BINARY,
            Kind::Packed(_) => kind::PACKED,
            Kind::Pattern(_) => kind::PATTERN,
            Kind::Dictionary { framed: false, .. } => kind::DICTIONARY,
            Kind::Dictionary { .. } => kind::FRAMED_DICTIONARY,
            Kind::Copy(..) => kind::COPY,
            Kind::Recurring(_, false) => kind::RECURRING,
            Kind::Recurring(..) => kind::FRAMED_RECURRING,
        };
        let set = |flag, is_set| if is_set { flag } else { 0 };
        out.push(kind | set(ONCE, change == Change::Once));
        out.push(
            set(QUOTED, self.quoted)
                | set(ORDERED, self.order.is_some())
                | set(EXCEPTED, self.excepted)
                | set(KEPT, change == Change::Kept),
        );
        if let Some(order) = self.order {
            put(out, order.into());
        }
        match &self.kind {
            Kind::Text | Kind::Lengths => {}
            Kind::Recurring(key, _) => put(out, key.map_or(0, |key| u64::from(key) + 1)),
            Kind::Constant(value) => {
                put(out, value.len() as u64);
                out.extend_from_slice(value);
            }
            Kind::Numbers(spelling, predictor, coding) => {
                match spelling {
                    Spelling::Integer => {}
                    Spelling::Time(shape) => shape.put(out),
                    Spelling::Decimal(shape) => shape.put(out),
                    Spelling::Binary(shape) => shape.put(out),
                }
                number::put_predictor(out, *predictor, *coding);
            }
            Kind::Packed(packing) => packing.put(out),
            Kind::Pattern(pattern) => pattern.put(out),
            Kind::Dictionary { wide, .. } => out.push(u8::from(*wide)),
            Kind::Copy(original) => original.put(out),
        }
    }

    /// Reads a change.
    pub(super) fn read(reader: &mut Reader<'_>, column: u32) -> Result<(Self, Change), Error> {
        let wrong = || Error::Column { column, fault: ColumnFault::Parameters };
        let (byte, flags) = (reader.byte()?, reader.byte()?);
        let change = match (byte & ONCE != 0, flags & KEPT != 0) {
            (true, true) => return Err(wrong()),
            (true, false) => Change::Once,
            (false, true) => Change::Kept,
            (false, false) => Change::Afresh,
        };
        let flags = flags & !KEPT;
        if flags & !(QUOTED | ORDERED | EXCEPTED) != 0 {
            return Err(wrong());
        }
        let order = if flags & ORDERED != 0 { Some(reader.number_u32()?) } else { None };
        let spelled = |reader: &mut Reader<'_>, spelling| {
            let (predictor, coding) = number::read_predictor(reader)?.ok_or_else(wrong)?;
            Ok::<_, Error>(Kind::Numbers(spelling, predictor, coding))
        };
        let kind = match byte & !ONCE {
            kind::CONSTANT => {
                let length = reader.number_u32()?;
                if length > MAX_CONSTANT as u32 {
                    return Err(wrong());
                }
                Kind::Constant(reader.take(length as usize)?.into())
            }
            kind::TEXT => Kind::Text,
            kind::LENGTHS => Kind::Lengths,
            kind::INTEGERS => spelled(reader, Spelling::Integer)?,
            kind::TIMES => {
                let shape = TimeShape::read(reader)?.ok_or_else(wrong)?;
                spelled(reader, Spelling::Time(shape))?
            }
            kind::DECIMALS => {
                let shape = DecimalShape::read(reader)?.ok_or_else(wrong)?;
                spelled(reader, Spelling::Decimal(shape))?
            }
            kind::BINARY => {
                let shape = Binary::read(reader)?.ok_or_else(wrong)?;
                spelled(reader, Spelling::Binary(shape))?
            }
            kind::PACKED => Kind::Packed(Packing::read(reader)?.ok_or_else(wrong)?),
            kind::PATTERN => Kind::Pattern(Arc::new(Pattern::read(reader)?.ok_or_else(wrong)?)),
            number @ (kind::DICTIONARY | kind::FRAMED_DICTIONARY) => match reader.byte()? {
                byte @ 0..=1 => {
                    Kind::Dictionary { wide: byte != 0, framed: number == kind::FRAMED_DICTIONARY }
                }
                _ => return Err(wrong()),
            },
            number @ (kind::RECURRING | kind::FRAMED_RECURRING) => {
                Kind::Recurring(reader.number_u32()?.checked_sub(1), number == kind::FRAMED_RECURRING)
            }
            kind::COPY => Kind::Copy(Arc::new(Original::read(reader)?.ok_or_else(wrong)?)),
            kind => return Err(Error::UnknownKind { section: "column", kind }),
        };
        let allowed = match kind {
            Kind::Constant(_) | Kind::Copy(..) => 0,
            Kind::Dictionary { .. } | Kind::Recurring(..) => QUOTED,
            Kind::Numbers(spelling, ..) if !spelling.is_binary() => QUOTED | ORDERED | EXCEPTED,
            _ => QUOTED | ORDERED,
        };
        if flags & !allowed != 0 || order.is_some_and(|id| id >= MAX_COLUMNS) {
            return Err(wrong());
        }
        let (quoted, excepted) = (flags & QUOTED != 0, flags & EXCEPTED != 0);
        Ok((Self { quoted, excepted, order, kind }, change))
    }
}
