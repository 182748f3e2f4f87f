//! What an operator is told when the target refuses something.

use std::sync::Arc;

use kafka::{CommitError, KafkaCode};
use proto::hold::Reason;

use crate::{
    config::Link,
    target::{Obstacle, unauthorised},
};

/// A refusal in the operator's words.
pub(super) fn explain(code: KafkaCode, target: &Arc<str>, offset: Option<i64>) -> (Reason, String) {
    let at = offset.map_or_else(String::new, |offset| format!(" (source offset {offset})"));
    match code {
        KafkaCode::MESSAGE_TOO_LARGE | KafkaCode::RECORD_LIST_TOO_LARGE => (
            Reason::RecordTooLarge,
            format!(
                "target topic `{target}` refuses a record for its size{at}; raise its max.message.bytes with \
                 kafka-configs.sh and the partition goes on by itself, or name the offset in a [[skip]] table of the \
                 exporter"
            ),
        ),
        KafkaCode::INVALID_TIMESTAMP => (
            Reason::TimestampRefused,
            format!(
                "target topic `{target}` refuses a record's timestamp{at}; raise its message.timestamp.after.max.ms or \
                 message.timestamp.before.max.ms with kafka-configs.sh and the partition goes on by itself, or name the \
                 offset in a [[skip]] table of the exporter"
            ),
        ),
        code if code.is_authorization() => not_authorised(target, code),
        code if code.is_unknown_topic() => (
            Reason::TargetRecreated,
            format!(
                "target topic `{target}` is gone ({code}): it was deleted while records were written to it; restore it \
                 from a backup, or copy the topic again from its start under another link name or target name"
            ),
        ),
        code => (
            Reason::RecordRefused,
            format!(
                "target topic `{target}` refuses a record{at}: {code}; change what the topic demands with kafka-configs.sh \
                 (one that is compacted takes no record without a key) and the partition goes on by itself, or name the \
                 offset in a [[skip]] table of the exporter"
            ),
        ),
    }
}

/// Holds for topics: the same words wherever the cluster says no.
fn not_authorised(topic: &str, code: KafkaCode) -> (Reason, String) {
    match unauthorised(topic, code) {
        Obstacle::Hold(reason, detail) => (reason, detail),
        Obstacle::Passing(detail) => (Reason::TargetUnauthorized, detail),
    }
}

/// The code of a commit that failed for a missing right.
pub(super) fn missing_right(error: &CommitError) -> Option<KafkaCode> {
    match error {
        CommitError::Abortable { code } | CommitError::Failed { code } if code.is_authorization() => {
            Some(*code)
        }
        _ => None,
    }
}

/// The link's own topics may not be written, or not in transactions: no partition of the lane can go on, whatever its target
/// topic allows.
pub(super) fn own_topics_unauthorised(link: &Link, code: KafkaCode) -> (Reason, String) {
    if code != KafkaCode::TOPIC_AUTHORIZATION_FAILED {
        let detail = format!(
            "the target cluster does not let the importer write in transactions ({code}): nothing can be committed; grant \
             its principal Write and Describe on transactional ids with the prefix `longhaul.` with kafka-acls.sh; the lane \
             goes on by itself then"
        );
        return (Reason::TargetUnauthorized, detail);
    }
    let (progress, map) = (link.progress_topic(), link.offset_map_topic());
    let detail = format!(
        "the target cluster does not let the importer write the link's own topics ({code}): `{progress}` or `{map}`; \
         nothing can be committed without them; grant its principal Write, Read, Describe and DescribeConfigs on topics that \
         begin with `__longhaul.{}.` with kafka-acls.sh; the lane goes on by itself then",
        link.name
    );
    (Reason::TargetUnauthorized, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_named_as_what_it_is() {
        let link = crate::config::tests::link();
        let own = own_topics_unauthorised(&link, KafkaCode::TOPIC_AUTHORIZATION_FAILED).1;
        assert!(own.contains(&link.progress_topic()), "{own}");
        let ids = own_topics_unauthorised(&link, KafkaCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED).1;
        assert!(ids.contains("transactional ids") && !ids.contains(&link.progress_topic()), "{ids}");
    }
}
