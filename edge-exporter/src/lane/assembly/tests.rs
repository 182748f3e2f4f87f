use super::*;
use crate::{config::Skip, partition::tests::partition, position::Skips};

const LINGER: Duration = Duration::from_millis(20);

struct Bench {
    assembly: Assembly,
    now: Instant,
}

/// Slot, resume epoch, next, gap and record offsets of each group.
type Groups = Vec<(u32, u32, i64, GapReason, Vec<i64>)>;

impl Bench {
    fn new() -> Self {
        Self { assembly: Assembly::new(LINGER, 1 << 20), now: Instant::now() }
    }

    fn resume(&mut self, partition: Partition, epoch: u32, next: i64) -> u64 {
        self.assembly.resume(&Arc::new(partition), ResumeEpoch(epoch), Offset(next))
    }

    fn push(&mut self, token: u64, offset: i64, bytes: usize) -> Taken {
        let value = vec![7; bytes];
        let input = Input { offset, timestamp: 0, leader_epoch: Some(3), key: None, value: Some(&value) };
        self.assembly.record(token, input, std::iter::empty(), self.now)
    }

    fn pop(&mut self) -> Option<Groups> {
        let closed = self.assembly.pop()?;
        let groups = closed.batch.groups().iter().enumerate();
        let groups = groups
            .map(|(index, group)| {
                let offsets = closed.batch.records(index).map(|record| record.offset).collect();
                (group.slot, group.resume_epoch, group.next, group.gap, offsets)
            })
            .collect();
        Some(groups)
    }
}

fn skipping(ranges: &[(i64, i64)]) -> Partition {
    let skips: Vec<Skip> = ranges
        .iter()
        .map(|(from, to)| Skip {
            topic: "t".into(),
            topic_id: None,
            partition: 0,
            from: *from,
            to: *to,
            reason: "poison".into(),
        })
        .collect();
    crate::partition::tests::skipping(1, "t", Skips::new(&skips))
}

const PLAIN: GapReason = GapReason::NotVisible;

#[test]
fn records_wait_for_the_linger_and_leave_together() {
    let mut bench = Bench::new();
    let (a, b) = (bench.resume(partition(1, "a"), 1, 10), bench.resume(partition(2, "b"), 4, 0));
    bench.push(a, 10, 1);
    bench.push(b, 5, 1);
    bench.push(a, 12, 1);
    bench.assembly.close_due(bench.now + LINGER - Duration::from_millis(1));
    assert!(!bench.assembly.is_waiting());
    bench.assembly.close_due(bench.now + LINGER);
    let front = bench.assembly.front().unwrap();
    assert_eq!(front.topics.len(), 2);
    assert!(front.batch.groups().iter().all(|group| group.leader_epoch == 3));
    assert_eq!(bench.pop().unwrap(), [(1, 1, 13, PLAIN, vec![10, 12]), (2, 4, 6, PLAIN, vec![5])]);
    assert!(bench.assembly.is_empty());
}

#[test]
fn each_topic_of_a_batch_has_as_much_room_as_in_one_of_its_own() {
    for (topics, most) in [(1, 1), (2, 2), (3, 3), (4, 4), (6, 4)] {
        let mut bench = Bench::new();
        bench.assembly = Assembly::new(LINGER, 1 << 30);
        let tokens: Vec<u64> = (0..topics)
            .map(|number| bench.resume(partition(number as u32 + 1, &format!("topic-{number}")), 1, 0))
            .collect();
        for offset in 0..2 * most as i64 * 300 {
            let token = tokens[offset as usize % topics];
            assert_eq!(bench.push(token, offset, 968), Taken::Yes);
        }
        let plain = bench.assembly.pop().expect("more than enough was pushed").batch.plain_size();
        let target = most * limits::PARCEL_TARGET;
        assert!(plain > target - 1000 && plain <= target, "{plain} of {target} bytes with {topics} topics");
    }
}

#[test]
fn a_batch_closes_at_its_target_and_a_larger_record_travels_alone() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 0);
    bench.push(token, 0, 100_000);
    bench.push(token, 1, 100_000);
    assert!(!bench.assembly.is_waiting());
    bench.push(token, 2, 900_000);
    bench.push(token, 3, 1);
    assert_eq!(bench.pop().unwrap(), [(1, 1, 2, PLAIN, vec![0, 1])]);
    assert_eq!(bench.pop().unwrap(), [(1, 1, 3, PLAIN, vec![2])]);
    assert!(bench.pop().is_none(), "the small one waits for others");
}

#[test]
fn what_is_gathered_is_bounded_and_room_comes_back() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 0);
    let mut offset = 0;
    while !bench.assembly.is_full() {
        bench.push(token, offset, 50_000);
        offset += 1;
    }
    assert!((20..=22).contains(&offset), "{offset} records of 50 kB in 1 MiB");
    bench.pop();
    assert!(!bench.assembly.is_full());
}

#[test]
fn the_end_of_a_partition_advances_over_markers_without_records() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 0);
    bench.push(token, 0, 1);
    bench.assembly.end_of_partition(token, 3, bench.now);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 3, PLAIN, vec![0])]);
    bench.assembly.end_of_partition(token, 3, bench.now);
    assert!(bench.assembly.is_empty(), "nothing new");
    bench.assembly.end_of_partition(token, 7, bench.now);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 7, PLAIN, vec![])]);
}

#[test]
fn a_new_position_drops_what_was_read_for_the_old_one() {
    let mut bench = Bench::new();
    let old = bench.resume(partition(1, "a"), 1, 0);
    let other = bench.resume(partition(2, "b"), 1, 0);
    bench.push(old, 0, 1);
    bench.push(other, 0, 1);
    let new = bench.resume(partition(1, "a"), 2, 0);
    bench.push(old, 1, 1);
    bench.assembly.end_of_partition(old, 9, bench.now);
    assert!(bench.assembly.partition(old).is_none());
    bench.push(new, 0, 1);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 2, 1, PLAIN, vec![0]), (2, 1, 1, PLAIN, vec![0])], "by slot");
}

#[test]
fn records_before_the_position_are_not_taken_twice() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 5);
    for offset in [3, 4, 5, 5, 6] {
        bench.push(token, offset, 1);
    }
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 7, PLAIN, vec![5, 6])]);
}

#[test]
fn a_removed_slot_leaves_nothing_behind() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 0);
    bench.push(token, 0, 1);
    assert_eq!(bench.assembly.remove(Slot(1)), Some(token));
    assert!(bench.assembly.is_empty() && bench.assembly.due().is_none());
    assert_eq!(bench.assembly.remove(Slot(1)), None);
    bench.push(token, 1, 1);
    assert!(bench.assembly.is_empty());
}

#[test]
fn a_skipped_range_is_a_group_of_its_own_and_named() {
    let mut bench = Bench::new();
    let token = bench.resume(skipping(&[(3, 6)]), 1, 0);
    // Offset 2 is not visible, 3 and 5 are poison.
    for offset in [0, 1, 3, 5, 6, 7] {
        bench.push(token, offset, 1);
    }
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 3, PLAIN, vec![0, 1])]);
    let gaps = &bench.assembly.front().unwrap().gaps;
    assert_eq!((gaps.len(), gaps[0].first, gaps[0].next, &*gaps[0].why), (1, 3, 6, "poison"));
    assert_eq!(bench.pop().unwrap(), [(1, 1, 6, GapReason::Skipped, vec![])]);
    assert_eq!(bench.pop().unwrap(), [(1, 1, 8, PLAIN, vec![6, 7])]);
}

#[test]
fn a_skip_that_reaches_beyond_the_end_covers_only_what_was_read() {
    let mut bench = Bench::new();
    let token = bench.resume(skipping(&[(3, 1000)]), 1, 3);
    bench.push(token, 3, 1);
    bench.push(token, 4, 1);
    bench.assembly.close();
    bench.push(token, 5, 1);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 5, GapReason::Skipped, vec![])]);
    let gaps = &bench.assembly.front().unwrap().gaps;
    assert_eq!((gaps[0].first, gaps[0].next), (5, 6));
    assert_eq!(bench.pop().unwrap(), [(1, 1, 6, GapReason::Skipped, vec![])]);
}

#[test]
fn a_skip_between_offsets_that_nothing_was_read_of_does_not_claim_them() {
    let mut bench = Bench::new();
    let token = bench.resume(skipping(&[(7, 8)]), 1, 0);
    bench.push(token, 7, 1);
    bench.push(token, 8, 1);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 7, PLAIN, vec![])], "0 to 6 are not visible");
    assert_eq!(bench.pop().unwrap(), [(1, 1, 8, GapReason::Skipped, vec![])]);
    assert_eq!(bench.pop().unwrap(), [(1, 1, 9, PLAIN, vec![8])]);
}

#[test]
fn expired_offsets_leave_as_a_named_group_before_any_record() {
    let mut bench = Bench::new();
    let token = bench.resume(skipping(&[(10, 50)]), 1, 10);
    bench.assembly.expire(token, 50, &"retention".into(), bench.now);
    bench.push(token, 50, 1);
    bench.assembly.close();
    let gap = bench.assembly.front().unwrap().gaps[0].clone();
    assert_eq!((gap.reason, gap.first, gap.next), (GapReason::Expired, 10, 50));
    assert_eq!(bench.pop().unwrap(), [(1, 1, 50, GapReason::Expired, vec![])]);
    assert_eq!(bench.pop().unwrap(), [(1, 1, 51, PLAIN, vec![50])]);
}

#[test]
fn a_record_that_no_parcel_can_carry_stops_its_slot_and_what_is_below_leaves() {
    let mut bench = Bench::new();
    let token = bench.resume(partition(1, "a"), 1, 0);
    bench.push(token, 0, 1);
    let bytes = codec::limits::MAX_RECORD_PLAIN as usize;
    assert!(matches!(bench.push(token, 4, bytes), Taken::TooLarge { slot: Slot(1), offset: 4, .. }));
    assert_eq!(bench.push(token, 5, 1), Taken::Yes);
    bench.assembly.close();
    assert_eq!(bench.pop().unwrap(), [(1, 1, 4, PLAIN, vec![0])]);
    assert!(bench.assembly.is_empty());
}
