//! What can be wrong with a column on the wire.

/// Every wrong thing a column can be. Any of it ends the lane epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ColumnFault {
    /// The list of columns has the same one twice, or one without values or beyond the limit.
    #[error("listed wrongly")]
    Listed,
    /// A change names a place beyond the columns of the parcel.
    #[error("a change of kind beyond the last column")]
    Change,
    /// Parameters of a kind that no encoder writes.
    #[error("parameters that its kind does not have")]
    Parameters,
    /// A reference to a column that is not earlier in the parcel, has another number of values, or not what is needed.
    #[error("refers to column {0}, which is not before it, has another count or not what is needed")]
    Reference(u32),
    /// A dictionary id that was never defined.
    #[error("dictionary entry {0} was never defined")]
    Entry(u32),
    /// The values of the parcel need more bytes than its declared plain size leaves.
    #[error("values need more bytes than the declared plain size")]
    TooLarge,
    /// A line of text, an entry or an exception does not end.
    #[error("a value does not end")]
    Unended,
    /// A number that stands for no value: a date out of range, a mantissa that would be written differently.
    #[error("a number stands for no value of its kind")]
    Number,
    /// Exceptions that are not in order or lie beyond the last value.
    #[error("exceptions are out of order or beyond the last value")]
    Exception,
}
