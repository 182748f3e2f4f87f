//! Why a source partition stands still: a stable word each, for metrics, audit logs and operators.

use std::fmt;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Why a source partition is held. Its word is part of the protocol and of the metrics' label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason's stable word.
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The reason of a word; [`Reason::Other`] for a later version's.
            pub fn from_word(word: &str) -> Self {
                match word {
                    $($word => Self::$name,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

reasons! {
    /// The source no longer has the offsets that come next: retention or DeleteRecords passed the position.
    SourceTruncated = "source_truncated",
    /// The source's log was cut back below the position: an unclean leader election, or a restored backup.
    SourceDiverged = "source_diverged",
    /// The source topic was deleted and made again: its id changed.
    SourceRecreated = "source_recreated",
    /// The source topic is gone.
    SourceGone = "source_gone",
    /// The source cluster does not let the exporter read the topic.
    SourceUnauthorized = "source_unauthorized",
    /// Another link writes the source topic: carried on, its records could come back in a circle.
    WouldLoop = "would_loop",
    /// A record is larger than a parcel may be.
    RecordTooLargeForLink = "record_too_large_for_link",
    /// A record is larger than the target topic takes.
    RecordTooLarge = "record_too_large",
    /// The target refuses a record's timestamp.
    TimestampRefused = "timestamp_refused",
    /// The target refuses a record for another reason.
    RecordRefused = "record_refused",
    /// The target cluster does not let the importer write the topic.
    TargetUnauthorized = "target_unauthorized",
    /// Nothing is known of the source partition, and its target partition already has records.
    TargetNotEmpty = "target_not_empty",
    /// The target partition ends before the last record that was committed there.
    TargetTruncated = "target_truncated",
    /// The target topic was deleted and made again.
    TargetRecreated = "target_recreated",
    /// Someone else wrote to the target partition.
    ForeignWriter = "foreign_writer",
    /// The target topic cannot be created, or is not fit: too few partitions, or it stamps its own time.
    TargetUnfit = "target_unfit",
    /// The partition was committed to another target topic than the mapping names now.
    MappingChanged = "mapping_changed",
    /// The link's progress topic is not what it must be, or lost what it held.
    ProgressLost = "progress_lost",
    /// Another producer's open transaction hides the end of the progress partition.
    ProgressBlocked = "progress_blocked",
    /// The number of lanes in the configuration is not the number that the link was made with.
    LanesChanged = "lanes_changed",
    /// Another importer owns the lane.
    OwnedElsewhere = "owned_elsewhere",
    /// A reason of a later version.
    Other = "other",
}

impl Reason {
    /// Whether it comes of a record that the target does not take. A position is then given again whenever the partition
    /// is opened: only a commit beyond it shows that the record is taken now.
    pub fn comes_of_a_record(self) -> bool {
        matches!(
            self,
            Self::RecordTooLarge | Self::TimestampRefused | Self::RecordRefused | Self::TargetUnauthorized
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_comes_back_from_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.word()), *reason);
        }
        assert_eq!(Reason::from_word("of_next_year"), Reason::Other);
    }
}
