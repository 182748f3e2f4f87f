//! Columns there and back, over several parcels, through both ends.

mod properties;

use super::*;
use crate::Error;
use crate::varint::Reader;

/// Both ends of a lane epoch.
#[derive(Default)]
struct Ends {
    encoders: ColumnEncoders,
    decoders: ColumnDecoders,
    sink: Sink,
    bytes: Vec<u8>,
}

impl Ends {
    /// One parcel through both ends, with a value of each record from the first on; returns its bytes.
    fn pass(&mut self, timestamps: &[i64], columns: &[(u32, Vec<Vec<u8>>)]) -> usize {
        let records: Vec<Vec<u32>> =
            columns.iter().map(|(_, values)| (0..values.len() as u32).collect()).collect();
        self.pass_of(&records, timestamps, columns)
    }

    /// As [`pass`](Self::pass), with the record of each value.
    fn pass_of(
        &mut self,
        records: &[Vec<u32>],
        timestamps: &[i64],
        columns: &[(u32, Vec<Vec<u8>>)],
    ) -> usize {
        let (mut arena, mut spans) = (Vec::new(), Vec::new());
        for (_, values) in columns {
            let of_column: Vec<Span> = values
                .iter()
                .map(|value| {
                    let start = arena.len() as u32;
                    arena.extend_from_slice(value);
                    Span { start, end: arena.len() as u32 }
                })
                .collect();
            spans.push(of_column);
        }
        let (origins, expected) = origins(records, timestamps, columns.iter().map(|(id, _)| *id));
        let inputs: Vec<_> = expected
            .iter()
            .zip(&spans)
            .map(|(Expected { id, set, .. }, spans)| Input { id: *id, spans, set: *set, binary: None })
            .collect();
        self.bytes.clear();
        self.encoders.encode(&arena, &origins, &inputs, &mut self.bytes);
        let mut reader = Reader::new(&self.bytes, "test");
        self.sink.set_limit(arena.len());
        self.decoders.decode(&mut reader, &origins, &expected, &mut self.sink).expect("what was encoded");
        assert_eq!(reader.remaining(), 0);
        for (index, (id, values)) in columns.iter().enumerate() {
            let decoded = self.sink.column(index);
            assert_eq!(decoded.len(), values.len(), "column {id}");
            for (row, (span, value)) in decoded.iter().zip(values).enumerate() {
                let decoded = span.of(self.sink.arena());
                assert!(decoded == value, "column {id}, row {row}: {value:?} came back as {decoded:?}");
            }
        }
        assert_eq!(self.encoders.room_left(), self.decoders.room_left());
        self.bytes.len()
    }
}

/// Columns whose values are of these records. Timestamps that are missing are 0.
fn origins(
    records: &[Vec<u32>],
    timestamps: &[i64],
    ids: impl Iterator<Item = u32>,
) -> (Origins, Vec<Expected>) {
    let last = records.iter().flatten().max().map_or(0, |last| *last as usize + 1);
    let mut origins = Origins::default();
    origins.begin((0..last).map(|record| timestamps.get(record).copied().unwrap_or_default()));
    let expected = ids.zip(records).map(|(id, records)| {
        let set = origins.add(records.len());
        records.iter().for_each(|record| origins.enter(set, *record));
        Expected { id, count: records.len() as u32, set: origins.first_like(set) }
    });
    let expected = expected.collect();
    (origins, expected)
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    values.into_iter().map(|value| value.to_string().into_bytes()).collect()
}

/// Numbers that look random and are the same each time.
fn noise(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20
    })
}

const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Several parcels of one column made for a kind: it must be chosen, and small.
fn chosen(make: impl Fn(u64) -> Vec<Vec<u8>>, kind: &str, per_value: f64) {
    let mut ends = Ends::default();
    let mut last = 0;
    for parcel in 0..4 {
        let values = make(parcel);
        let count = values.len();
        last = ends.pass(&[], &[(3, values)]);
        let _ = count;
    }
    let name = ends.encoders.kind_of(3);
    assert!(name.starts_with(kind), "{name} was chosen instead of {kind}");
    assert!((last as f64) < per_value * 400.0, "{last} bytes as {name}");
}

#[test]
fn bytes_are_equal_when_each_of_them_is() {
    let bytes: Vec<u8> = (0..40).collect();
    for length in 0..bytes.len() {
        let one = &bytes[..length];
        let same = one.to_vec();
        assert!(equal(one, &same) && !equal(one, &bytes[..length + 1]));
        for at in 0..length {
            let mut other = one.to_vec();
            other[at] ^= 0x80;
            assert!(!equal(one, &other), "{length} bytes, unlike at {at}");
        }
    }
}

#[test]
fn a_range_coder_is_chosen_where_bytes_count_and_left_where_it_saves_less_than_its_time() {
    let made = |parcel: u64| {
        let mut last = parcel * 1_000_000;
        texts(noise(parcel + 1).take(2000).map(|gap| {
            last += gap % 200;
            last
        }))
    };
    for (thrifty, coder) in [(false, true), (true, false)] {
        let mut ends = Ends::default();
        ends.encoders.set_thrifty(thrifty);
        for parcel in 0..4 {
            ends.pass(&[], &[(3, made(parcel))]);
        }
        let name = ends.encoders.kind_of(3);
        assert_eq!(name.contains("Ranged"), coder, "{name}");
    }
}

#[test]
fn each_kind_is_chosen_on_data_made_for_it() {
    let random = |parcel: u64| noise(parcel + 1).take(400);
    chosen(|_| texts(vec!["always"; 400]), "Constant", 0.01);
    chosen(|p| texts(random(p).map(|n| format!("free text {n:x}/{}", n % 977))), "Text", 40.0);
    chosen(|p| texts(random(p).map(|n| format!("a\n{n:x}g{n:x}"))), "Lengths", 27.0);
    chosen(|p| texts((0..400).map(|n| 1_000_000 + p * 4000 + n * 10)), "Numbers(Integer", 1.1);
    chosen(
        |p| {
            texts(
                random(p).map(|n| ["\"red\"", "\"green\"", "\"blue\"", "\"a longer name\""][n as usize % 4]),
            )
        },
        "Dictionary",
        1.1,
    );
    chosen(
        |p| {
            texts(random(p).map(|n| {
                format!(
                    "{:016x}{:016x}",
                    n.wrapping_mul(MIX),
                    n.wrapping_mul(MIX).rotate_left(17).wrapping_mul(MIX)
                )
            }))
        },
        "Packed",
        16.1,
    );
    chosen(
        |p| texts(random(p).enumerate().map(|(i, n)| format!("job-{}/part-{}", p * 400 + i as u64, n % 3))),
        "Pattern",
        2.5,
    );
    chosen(
        |p| {
            texts(
                (0..400)
                    .map(|n| format!("2026-11-22T10:{:02}:{:02}.{:03}Z", p, n * 60 / 400, n * 150 % 1000)),
            )
        },
        "Numbers(Time",
        2.1,
    );
    chosen(
        |p| {
            texts(random(p).scan(215_000i64, |at, n| {
                *at += n as i64 % 200 - 100;
                Some(format!("{}.{:03}", *at / 1000, *at % 1000))
            }))
        },
        "Numbers(Decimal",
        2.1,
    );
}

#[test]
fn columns_refer_to_earlier_ones() {
    let mut ends = Ends::default();
    for parcel in 0..6u64 {
        let random: Vec<u64> = noise(parcel + 1).take(500).collect();
        let keys = texts(random.iter().map(|n| format!("sensor-{}", n % 40)));
        let times: Vec<i64> =
            (0..500).map(|n| 1_700_000_000_000 + parcel as i64 * 500_000 + n * 997).collect();
        let fields = texts(random.iter().map(|n| format!("\"sensor-{}\"", n % 40)));
        let micros = texts(times.iter().zip(&random).map(|(ms, n)| ms * 1000 + *n as i64 % 100));
        let counters = texts(random.iter().map(|n| (n % 40) * 1_000_003 + parcel * 7 + (n >> 9) % 50));
        let urls =
            texts(random.iter().map(|n| format!("\"https://api.example/sensors/sensor-{}/all\"", n % 40)));
        let columns =
            [(0, keys), (1, fields), (2, texts(times.iter())), (3, micros), (4, counters), (5, urls)];
        ends.pass(&times, &columns);
    }
    assert!(ends.encoders.kind_of(0).starts_with("Dictionary"), "{}", ends.encoders.kind_of(0));
    assert!(ends.encoders.kind_of(1).starts_with("Copy(Original { id: 0"), "{}", ends.encoders.kind_of(1));
    assert!(ends.encoders.kind_of(2).contains("Scaled(Timestamps"), "{}", ends.encoders.kind_of(2));
    assert!(ends.encoders.kind_of(3).contains("Scaled("), "{}", ends.encoders.kind_of(3));
    assert!(ends.encoders.kind_of(5).starts_with("Copy("), "{}", ends.encoders.kind_of(5));
    assert!(ends.encoders.kind_of(4).contains("Keyed(0)"), "{}", ends.encoders.kind_of(4));
}

#[test]
fn small_parcels_find_their_kinds_and_cost_little() {
    let mut ends = Ends::default();
    let mut bytes = 0;
    for parcel in 0..400u64 {
        let rows = 1 + parcel % 3;
        let times: Vec<i64> = (0..rows).map(|n| 1_700_000_000_000 + (parcel * 3 + n) as i64 * 20).collect();
        let level =
            texts(noise(parcel + 1).take(rows as usize).map(|n| ["\"info\"", "\"warn\""][n as usize % 2]));
        let same = texts(vec!["\"the same in all records\""; rows as usize]);
        bytes = ends.pass(&times, &[(0, texts(times.iter())), (1, level), (2, same)]) - 1;
        if parcel > 300 {
            assert!(
                bytes <= 2 * rows as usize,
                "{bytes} bytes for {rows} rows: {}",
                ends.encoders.kind_of(0)
            );
        }
    }
    assert!(bytes > 0 && ends.encoders.kind_of(2).starts_with("Constant"));
}

#[test]
fn a_value_that_is_no_number_is_an_exception_and_the_state_stays() {
    let numbers = |from: u64| texts((from..from + 300).map(|n| n * 3));
    for odd in
        ["null", "007", "-0", "+1", "1e5", "", "a\nb", "9223372036854775808", "\"1\"", "99999999999999999999"]
    {
        let mut ends = Ends::default();
        ends.pass(&[], &[(0, numbers(0))]);
        ends.pass(&[], &[(0, numbers(300))]);
        let steady = ends.pass(&[], &[(0, numbers(600))]);
        let mut with_odd = numbers(900);
        with_odd[150] = odd.into();
        let excepted = ends.pass(&[], &[(0, with_odd)]);
        assert!(excepted <= steady + odd.len() + 20, "{odd}: {excepted} bytes with it, {steady} before");
        let after = ends.pass(&[], &[(0, numbers(1200))]);
        // As text it would be five times as much.
        assert!(after <= 310, "{odd}: {after} bytes after, {steady} before");
        for parcel in 0..20 {
            ends.pass(&[], &[(0, numbers(1500 + parcel * 300))]);
        }
        assert!(
            ends.encoders.kind_of(0).starts_with("Numbers(Integer"),
            "{odd}: {}",
            ends.encoders.kind_of(0)
        );
    }
}

#[test]
fn a_column_that_is_gathered_later_is_not_taken_for_one_of_the_same_records() {
    let mut ends = Ends::default();
    let values = || texts((0..30).map(|n| n % 10));
    ends.pass(&[], &[(1, values())]);
    for _ in 0..20 {
        ends.pass(&[], &[(0, values()), (1, values())]);
    }
    assert!(!ends.encoders.kind_of(1).starts_with("Text"), "{}", ends.encoders.kind_of(1));
}

#[test]
fn too_many_exceptions_go_as_text_for_one_parcel() {
    let mut ends = Ends::default();
    let numbers = |from: u64| texts((from..from + 300).map(|n| n * 3));
    (0..3).for_each(|parcel| {
        ends.pass(&[], &[(0, numbers(parcel * 300))]);
    });
    let words = texts(noise(1).take(300).map(|n| format!("{n:x}-free-text")));
    ends.pass(&[], &[(0, words)]);
    for parcel in 3..6 {
        ends.pass(&[], &[(0, numbers(parcel * 300))]);
    }
    assert!(ends.encoders.kind_of(0).starts_with("Numbers(Integer"), "{}", ends.encoders.kind_of(0));
}

/// Random walks of forty sensors, some of them with decimals where others have none, and now and then no number.
fn readings(parcel: u64, odd: impl Fn(usize, u64) -> Option<Vec<u8>>) -> [(u32, Vec<Vec<u8>>); 2] {
    let random: Vec<u64> = noise(parcel + 1).take(1000).collect();
    let keys = texts(random.iter().map(|n| format!("sensor-{}", n % 40)));
    let value = |(row, n): (usize, &u64)| {
        let sensor = n % 40;
        let jump = n >> 12 & 15;
        let number = sensor * 1_000_000 + jump;
        let text = if sensor % 2 == 0 { format!("{number}.0") } else { format!("{sensor}.{jump:04}1") };
        odd(row, *n).unwrap_or_else(|| text.into_bytes())
    };
    let values = random.iter().enumerate().map(value).collect();
    [(0, keys), (1, values)]
}

#[test]
fn numbers_with_holes_cost_little_more_than_numbers_without() {
    let sizes = |odd: &dyn Fn(usize, u64) -> Option<Vec<u8>>| {
        let mut ends = Ends::default();
        let sizes: Vec<usize> = (0..8).map(|parcel| ends.pass(&[], &readings(parcel, odd))).collect();
        (sizes[7], ends.encoders.kind_of(1))
    };
    let (whole, kind) = sizes(&|_, _| None);
    assert!(kind.starts_with("Numbers(Decimal") && kind.contains("Counted"), "{kind}");
    for (hole, every) in [("null", 50), ("1.03989471325e-05", 100), ("", 30), ("\"n/a\"", 70)] {
        let (holed, kind) = sizes(&|row, _| row.is_multiple_of(every).then(|| hole.as_bytes().to_vec()));
        let holes = 1000usize.div_ceil(every);
        assert!(kind.starts_with("Numbers(Decimal"), "{hole}: {kind}");
        assert!(holed <= whole + holes * (hole.len() + 3) + 20, "{hole}: {holed} bytes, {whole} without");
    }
}

#[test]
fn quoted_decimals_may_have_bare_nulls_among_them() {
    let shape = decimal::DecimalShape::candidates(18).next().expect("counted decimals");
    let kind = choice::Kind::Numbers(
        choice::Spelling::Decimal(shape),
        number::Predictor::Previous,
        number::Coding::Varints,
    );
    let counted = choice::Choice { excepted: true, ..choice::Choice::of(true, kind) };
    let mut ends = Ends::default();
    for parcel in 0..4u64 {
        ends.encoders.force(0, counted.clone());
        let values = noise(parcel + 1).take(400).enumerate().map(|(row, n)| match row % 20 {
            7 => "null".to_owned(),
            _ => format!("\"{}.{}\"", n % 7_000, ["5", "25", "625", "0", "7500"][n as usize >> 8 & 3]),
        });
        ends.pass(&[], &[(0, texts(values))]);
        // The first parcel has a trial, whose choice comes before what is asked for here.
        let kind = ends.encoders.kind_of(0);
        assert!(parcel == 0 || kind.contains("Counted"), "{kind}");
    }
}

#[test]
fn quoted_numbers_may_have_bare_nulls_among_them() {
    let mut ends = Ends::default();
    for parcel in 0..4u64 {
        let values = noise(parcel + 1).take(400).enumerate().map(|(row, n)| match row % 20 {
            7 => "null".to_owned(),
            _ => format!("\"{}\"", 5_000_000 + parcel * 400 + row as u64 + (n & 3)),
        });
        let bytes = ends.pass(&[], &[(0, texts(values))]);
        assert!(parcel == 0 || bytes < 700, "{bytes} bytes: {}", ends.encoders.kind_of(0));
    }
    assert!(ends.encoders.kind_of(0).starts_with("Numbers(Integer"), "{}", ends.encoders.kind_of(0));
}

/// The state of one of many devices: what it is called, and what goes with that.
fn of_devices(devices: &[u64], changed: u64) -> Vec<(u32, Vec<Vec<u8>>)> {
    let column = |name: u64| {
        texts(devices.iter().map(|device| {
            let changed = if name > 0 { changed } else { 0 };
            format!(
                "\"{:012x}\"",
                noise(device * 7 + name + changed).nth(1).unwrap_or_default() & 0xffff_ffff_ffff
            )
        }))
    };
    (0..4).map(|name| (name as u32, column(name))).collect()
}

#[test]
fn what_goes_with_a_key_is_found_over_thousands_of_records() {
    let mut ends = Ends::default();
    let parcel = |ends: &mut Ends, number: u64, changed: u64| {
        let devices: Vec<u64> = noise(number + 1).take(300).map(|n| n % 4000).collect();
        ends.pass(&[], &of_devices(&devices, changed))
    };
    let first = (0..10).map(|number| parcel(&mut ends, number, 0)).sum::<usize>();
    for number in 10..120 {
        parcel(&mut ends, number, 0);
    }
    assert!(ends.encoders.kind_of(0).starts_with("Dictionary"), "{}", ends.encoders.kind_of(0));
    for column in 1..4 {
        // With the first, or with one that goes with it.
        let kind = ends.encoders.kind_of(column);
        assert!(kind.starts_with("Recurring(Some("), "column {column}: {kind}");
    }
    let last = (120..130).map(|number| parcel(&mut ends, number, 0)).sum::<usize>();
    assert!(last * 6 < first, "{last} bytes at last, {first} at first");
    // All are other devices under the old names, once: they are learnt anew, and nothing flaps.
    for number in 130..250 {
        parcel(&mut ends, number, 1);
    }
    let again = (250..260).map(|number| parcel(&mut ends, number, 1)).sum::<usize>();
    assert!(again * 6 < first, "{again} bytes once they are known again");
    // With each parcel they are others: nothing goes with the name any more.
    for number in 260..330 {
        parcel(&mut ends, number, number);
    }
    let without = (330..340).map(|number| parcel(&mut ends, number, number)).sum::<usize>();
    assert!(without < first + first / 4, "{without} bytes without a key, {first} at first");
}

#[test]
fn what_comes_again_in_the_same_order_is_not_made_to_go_with_a_key() {
    let mut ends = Ends::default();
    for round in 0..4 {
        for start in (0..6000).step_by(300) {
            ends.pass(&[], &of_devices(&(start..start + 300).collect::<Vec<_>>(), 0));
            let kinds: Vec<String> = (0..4).map(|column| ends.encoders.kind_of(column)).collect();
            assert!(!kinds.iter().any(|kind| kind.starts_with("Recurring")), "round {round}: {kinds:?}");
        }
    }
}
