//! What the proxy reads of a request and of its answer.

use crate::wire::{ApiKey, Reader, RequestHeader};

const ADD_OFFSETS_TO_TXN: ApiKey = ApiKey(25);
const TXN_OFFSET_COMMIT: ApiKey = ApiKey(28);

/// The first version of a request that is flexible, for the requests that begin with a transactional id.
fn flexible_from(api_key: ApiKey) -> Option<i16> {
    match api_key {
        ApiKey::Produce => Some(9),
        ApiKey::InitProducerId => Some(2),
        ApiKey::AddPartitionsToTxn | ApiKey::EndTxn | ADD_OFFSETS_TO_TXN | TXN_OFFSET_COMMIT => Some(3),
        _ => None,
    }
}

/// The transactional id at the front of a request's body, where there is one.
///
/// `AddPartitionsToTxn` from version 4 on names several and `Produce` before version 3 none; librdkafka sends neither.
pub(super) fn transactional_id(frame: &[u8]) -> Option<String> {
    let mut reader = Reader::new(frame);
    let header = RequestHeader::read(&mut reader)?;
    let id = if header.version >= flexible_from(header.api_key)? {
        reader.tags()?;
        reader.compact_string()?
    } else {
        reader.string()?
    };
    id.map(str::to_owned)
}

/// The error code of an answer to `EndTxn` or `InitProducerId`: both begin with a throttle time and a code.
pub(super) fn error_code(request: &RequestHeader, answer: &[u8]) -> Option<i16> {
    if !matches!(request.api_key, ApiKey::EndTxn | ApiKey::InitProducerId) {
        return None;
    }
    let mut reader = Reader::new(answer);
    reader.i32()?; // correlation id
    if request.version >= flexible_from(request.api_key)? {
        reader.tags()?;
    }
    reader.i32()?; // throttle time
    reader.i16()
}

/// The correlation id at the front of an answer.
pub(super) fn correlation_id(answer: &[u8]) -> Option<i32> {
    Reader::new(answer).i32()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Writer;

    fn header(api_key: ApiKey, version: i16) -> RequestHeader {
        RequestHeader { api_key, version, correlation_id: 9, client_id: Some("c".to_owned()) }
    }

    #[test]
    fn the_transactional_id_is_found_in_old_and_flexible_requests() {
        let old =
            Writer::request(&header(ApiKey::EndTxn, 1), false).string(Some("lane-0")).i64(1).i16(0).finish();
        assert_eq!(transactional_id(&old).as_deref(), Some("lane-0"));
        let new = Writer::request(&header(ApiKey::EndTxn, 3), true).compact_string("lane-1").i64(1).finish();
        assert_eq!(transactional_id(&new).as_deref(), Some("lane-1"));
        let none = Writer::request(&header(ApiKey::Produce, 7), false).string(None).i16(-1).finish();
        assert_eq!(transactional_id(&none), None);
        let other = Writer::request(&header(ApiKey::Metadata, 12), true).finish();
        assert_eq!(transactional_id(&other), None);
    }

    #[test]
    fn the_error_code_is_found_in_old_and_flexible_answers() {
        let old = Writer::default().i32(9).i32(0).i16(47).finish();
        assert_eq!(error_code(&header(ApiKey::EndTxn, 1), &old), Some(47));
        let new = Writer::default().i32(9).tags().i32(0).i16(48).tags().finish();
        assert_eq!(error_code(&header(ApiKey::EndTxn, 3), &new), Some(48));
        assert_eq!(error_code(&header(ApiKey::Fetch, 12), &new), None);
        assert_eq!(error_code(&header(ApiKey::EndTxn, 1), &old[..6]), None);
    }
}
