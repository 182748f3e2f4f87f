//! `[[skip]]`: the operator's recorded word for a gap.

use proto::ids::TopicId;
use serde::{Deserialize, Serialize};

/// Source offsets that will not be delivered, because an operator says so.
///
/// It lifts a hold: offsets that the source no longer has count as expired, records that cannot be carried are left
/// out. Records in the range that could be carried are left out too, so keep ranges small and remove the entry when
/// the partition went past it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Name of the source topic. No default.
    pub topic: String,
    /// Id of the source topic as Kafka prints it, so that the entry can never apply to a topic of the same name made
    /// later. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    /// Number of the partition. No default.
    pub partition: i32,
    /// First offset of the range. No default.
    pub from: i64,
    /// First offset after the range. No default.
    pub to: i64,
    /// Why, in the operator's words: it goes into the audit log. No default.
    pub reason: String,
}

impl Skip {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if !proto::policy::is_legal_topic(&self.topic) || proto::policy::is_internal(&self.topic) {
            let what = format!("expected the exact name of a source topic, found {:?}", self.topic);
            return Err(("topic", what));
        }
        if let Some(id) = &self.topic_id
            && let Err(error) = id.parse::<TopicId>()
        {
            return Err(("topic_id", error.to_string()));
        }
        if self.partition < 0 {
            return Err(("partition", format!("expected 0 or more, found {}", self.partition)));
        }
        if self.from < 0 {
            return Err(("from", format!("expected 0 or more, found {}", self.from)));
        }
        if self.to <= self.from {
            return Err((
                "to",
                format!("expected an offset above `from` ({}), found {}", self.from, self.to),
            ));
        }
        if self.reason.trim().is_empty() {
            return Err(("reason", "expected the operator's words for the audit log, found nothing".into()));
        }
        Ok(())
    }

    /// Whether the entry is about this source partition.
    pub(crate) fn is_about(&self, topic: &str, id: TopicId, partition: i32) -> bool {
        self.topic == topic
            && self.partition == partition
            && self.topic_id.as_ref().is_none_or(|wanted| *wanted == id.to_string())
    }
}
