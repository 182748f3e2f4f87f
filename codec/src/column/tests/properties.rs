//! Every kind on values that are canonical, nearly canonical and neither; and every decoder on damaged bytes.

use proptest::prelude::*;

use super::super::binary::{Binary, Branches, Form, Spelled};
use super::super::choice::{Choice, Kind, Spelling};
use super::super::copy::Original;
use super::super::decimal::DecimalShape;
use super::super::number::{Coding, Pair, Predictor, Scale, Source, Term};
use super::super::packed::Packing;
use super::super::pattern::Pattern;
use super::super::time::TimeShape;
use super::*;

/// What is easily mistaken for a number, a date, digits of an alphabet, or a line.
const ODD: &[&str] = &[
    "",
    "-",
    "+1",
    "-0",
    "0",
    "00",
    "007",
    "1e5",
    "1.",
    ".5",
    "-0.0",
    "0.10",
    "1.50",
    "1.5",
    "2.0",
    "-1.25",
    "1.2.3",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "99999999999999999999",
    "0.000000000000000001",
    "1234567890123456789.5",
    "31.153000000000002",
    "-6.1339999999999995",
    "10.787379183199999",
    "0.30000000000000004",
    "31.153000000000001",
    "0.1000000000000000055",
    "99999999999999.98",
    "null",
    "true",
    "\"\"",
    "\"",
    "\"1\"",
    "1\"",
    "a\nb",
    "\n",
    "\"a\nb\"",
    "2016-12-31T23:59:60Z",
    "2026-02-29T00:00:00Z",
    "2024-02-29T00:00:00Z",
    "2026-11-22T24:00:00Z",
    "2026-11-22T10:00:00+01:00",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "2026-11-22T10:00:00.Z",
    "2026-1-22T10:00:00Z",
    "22/Nov/2026:10:00:00 +0000",
    "22/nov/2026:10:00:00 +0000",
    "31/Feb/2026:10:00:00 +0000",
    "deadbeef",
    "DEADBEEF",
    "deadBEEF",
    "deadbeef0",
    "6f1f0f4e-5b1c-4c1e-8d3b-0a1b2c3d4e5f",
    "6F1F0F4E-5B1C-4C1E-8D3B-0A1B2C3D4E5F",
    "6f1f0f4e5b1c4c1e8d3b0a1b2c3d4e5f----",
    "QUJDREVGRw==",
    "QUJDREVGRx==",
    "QUJDREVGRw=",
    "QUJDREVGRw",
    "QUJDREVG",
    "QUJD-_VG",
    "QUJD+/VG",
    "a-1",
    "a-01",
    "a-",
];

/// A value of one of several families, or an odd one now and then.
fn value(family: u64, n: u64, row: u64) -> String {
    let day = n % 28 + 1;
    match family {
        0 => (n as i64 >> (n % 60)).to_string(),
        1 => (row * 10).to_string(),
        2 => format!("{}.{:02}", n % 1000, n % 97),
        3 => format!("{}", (n % 100_000) as f64 / 100.0),
        4 => format!("{:?}", (n % 1000) as f64 / 8.0 - 60.0),
        5 => format!("2026-11-{day:02}T{:02}:{:02}:{:02}.{:03}Z", n % 24, n % 60, n % 59, n % 1000),
        6 => format!("{day:02}/Feb/2024:{:02}:00:{:02} +0100", n % 24, n % 60),
        7 => format!("{:016x}", n.wrapping_mul(MIX)),
        8 => format!("\"{:08X}-0000-4C1E-8D3B-{:012X}\"", n as u32, n & 0xffff_ffff_ffff),
        9 => format!("\"item-{}/{:03}\"", row, n % 1000),
        10 => format!("\"{}\"", ["red", "green", "blue"][n as usize % 3]),
        13 => format!("{:?}", (n % 1000) as f64 * 0.001 + 0.1),
        11 => format!("host-{}", n % 17),
        12 => ["QUJDREVGRw==", "QUJDREVGRg==", "ZZZZZZZZZQ=="][n as usize % 3].to_owned(),
        _ => ODD[n as usize % ODD.len()].to_owned(),
    }
}

type Columns = Vec<(u32, Vec<Vec<u8>>)>;

/// Columns of a parcel: each of its own family.
fn columns(seed: u64, rows: usize, odd: u64) -> Columns {
    let column = |id: u32| {
        let family = (seed >> (id * 4) & 15) % 15;
        let values = noise(seed ^ u64::from(id) << 50).take(rows).enumerate().map(|(row, n)| {
            let family = if odd > 0 && n % odd == 0 { 99 } else { family };
            if family != 99 && seed >> (40 + id) & 3 == 0 {
                return binary(seed >> (36 + id), n >> 7);
            }
            value(family, n >> 7, seed % 1000 + row as u64).into_bytes()
        });
        (id, values.collect())
    };
    (0..6).map(column).collect()
}

/// A number as binary formats have it.
fn binary(family: u64, n: u64) -> Vec<u8> {
    let (shape, none) = (any_binary(family), n.is_multiple_of(5));
    let number = match shape.form {
        Form::Fixed64 => n as i64,
        _ => (n >> (n & 31) & 0xffff) as i64 - 300,
    };
    let mut spelled = Spelled::default();
    shape.spell((!none || !shape.is_optional()).then_some(number), &mut spelled).expect("a small number");
    spelled.as_bytes().to_vec()
}

fn any_binary(n: u64) -> Binary {
    let forms = [Form::Varint, Form::Zigzag, Form::Fixed32, Form::Fixed64, Form::Float(1), Form::Double(2)];
    let optional = (n & 8 != 0).then_some(Branches { some: 2, none: 0 });
    Binary { form: forms[(n & 7) as usize % 6], optional }
}

/// A choice of every kind, whether it fits or not.
fn any_choice(n: u64, values: &[Vec<u8>]) -> Choice {
    let arena = values.concat();
    let mut start = 0;
    let spans: Vec<Span> = values
        .iter()
        .map(|value| {
            let span = Span { start, end: start + value.len() as u32 };
            start = span.end;
            span
        })
        .collect();
    let plain = Values { arena: &arena, spans: &spans, strip: 0 };
    let quoted = plain.stripped().is_some() && n.is_multiple_of(3);
    let stripped = if quoted { plain.stripped().expect("quoted") } else { plain };
    let earlier = (n >> 8) as u32 % 6;
    let coding = [Coding::Varints, Coding::Planes, Coding::Ranged][(n >> 12) as usize % 3];
    let predictor = match n >> 16 & 7 {
        0 => Predictor::Zero,
        1 => Predictor::Previous,
        2 => Predictor::Slope,
        3 => Predictor::Keyed(earlier),
        4 => Predictor::KeyedSlope(earlier),
        5 => Predictor::Scaled(Source::Timestamps, Scale((n >> 20) as u8 % 6)),
        6 => Predictor::Scaled(Source::Column(earlier), Scale((n >> 20) as u8 % 7)),
        _ => {
            let term = |id, n| Term { id, binary: any_binary(n) };
            let (left, right) = (term(earlier, n >> 30), term((n >> 22) as u32 % 6, n >> 34));
            Predictor::Combined(Pair { left, right, minus: n & 16 != 0 })
        }
    };
    let first = stripped.get(0);
    let kind = match n >> 24 & 15 {
        0 => Kind::Constant(plain.get(0).into()),
        1 => Kind::Lengths,
        2 => Kind::Dictionary { wide: false, framed: n & 32 != 0 },
        3 => {
            let original = [&b"abc"[..], b"\"abc\"", b""][n as usize % 3];
            let value = [&b"abc"[..], b"\"abc\"", b"x/abc/y", b""][(n >> 4) as usize % 4];
            Original::of(earlier, value, original).map_or(Kind::Text, |original| Kind::Copy(original.into()))
        }
        4 => Kind::Recurring((n & 64 == 0).then_some(earlier), n & 32 != 0),
        5 => Packing::candidates(first).nth(n as usize % 2).map_or(Kind::Text, Kind::Packed),
        6 => Pattern::of(stripped).map_or(Kind::Text, |pattern| Kind::Pattern(pattern.into())),
        7 | 8 => TimeShape::of(first)
            .map_or(Kind::Text, |shape| Kind::Numbers(Spelling::Time(shape), predictor, coding)),
        9 | 10 => {
            let shape = DecimalShape::candidates(3).nth(n as usize % 4).expect("four styles");
            Kind::Numbers(Spelling::Decimal(shape), predictor, coding)
        }
        11 => Kind::Text,
        12 | 13 => Kind::Numbers(Spelling::Binary(any_binary(n >> 30)), predictor, coding),
        _ => Kind::Numbers(Spelling::Integer, predictor, coding),
    };
    let whole = matches!(kind, Kind::Constant(_) | Kind::Copy(..));
    let ordered =
        !whole && !matches!(kind, Kind::Dictionary { .. } | Kind::Recurring(..)) && n.is_multiple_of(5);
    let quoted = quoted && !whole;
    let choice = Choice { order: ordered.then_some(earlier), ..Choice::of(quoted, kind) };
    match choice.with_exceptions().filter(|_| n & 128 != 0) {
        Some(excepted) => Choice { quoted: n & 256 != 0, ..excepted },
        None => choice,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_a_column_is_said_to_be_its_values_come_back(
        seeds in prop::collection::vec((any::<u64>(), 1usize..90, 0u64..40), 1..6),
        kinds in any::<u64>(),
    ) {
        let mut ends = Ends::default();
        let mut choose = noise(kinds);
        let family = seeds[0].0;
        for (seed, rows, odd) in seeds {
            // Mostly the same families from parcel to parcel, so that state is used.
            let seed = if seed % 4 == 0 { seed } else { family ^ (seed % 4) };
            let columns = columns(seed, rows, odd);
            let timestamps: Vec<i64> = (0..rows as i64).map(|row| seed as i64 / 1_000_000 + row * 7).collect();
            if seed % 2 == 0 {
                for (id, values) in &columns {
                    let choice = any_choice(choose.next().expect("endless").wrapping_mul(MIX) >> 3, values);
                    ends.encoders.force(*id, choice);
                }
            }
            let (records, columns) = of_some_records(seed, columns);
            ends.pass_of(&records, &timestamps, &columns);
        }
    }
}

/// The same columns, most of them without the values of some records, and with those of others twice.
fn of_some_records(seed: u64, columns: Columns) -> (Vec<Vec<u32>>, Columns) {
    let mut random = noise(seed);
    let of_column = |(id, values): (u32, Vec<Vec<u8>>)| {
        let whole = random.next().expect("endless").is_multiple_of(3);
        let mut times = |_| {
            if whole { 1 } else { [1, 1, 1, 0, 0, 1, 1, 2][random.next().expect("endless") as usize % 8] }
        };
        let mut records: Vec<u32> =
            (0..values.len() as u32).flat_map(|record| std::iter::repeat_n(record, times(record))).collect();
        if records.is_empty() {
            records.push(0);
        }
        let values = records.iter().map(|record| values[*record as usize].clone()).collect();
        (records, (id, values))
    };
    columns.into_iter().map(of_column).unzip()
}

#[test]
fn damaged_bytes_are_errors_or_bounded_values() {
    let mut wrong = 0;
    for seed in 1..400u64 {
        let rows = 1 + seed as usize * 7 % 70;
        let (mut records, mut all) = (Vec::new(), Vec::new());
        for parcel in 0..2 {
            let columns = columns(seed.wrapping_mul(MIX) ^ parcel, rows, 30);
            let (of_parcel, columns) = of_some_records(seed, columns);
            records = of_parcel;
            all.push(columns);
        }
        let timestamps = (0..rows as i64).collect::<Vec<_>>();
        let mut ends = Ends::default();
        let mut parcels = Vec::new();
        for (parcel, columns) in all.iter().enumerate() {
            for (id, values) in columns.iter().filter(|_| parcel == 0 || seed % 3 == 0) {
                let choice = any_choice((seed * 6 + u64::from(*id)).wrapping_mul(MIX) >> 3, values);
                ends.encoders.force(*id, choice);
            }
            ends.pass_of(&records, &timestamps, columns);
            parcels.push(ends.bytes.clone());
        }
        let (origins, expected) = origins(&records, &timestamps, 0..6);
        let mut random = noise(seed);
        for _ in 0..60 {
            let mut next = || random.next().expect("endless") as usize;
            let mut damaged = parcels[1].clone();
            for _ in 0..1 + next() % 3 {
                let at = next() % damaged.len();
                match next() % 5 {
                    0 => damaged[at] ^= 1 << (next() % 8),
                    1 => damaged[at] = next() as u8,
                    2 => damaged.insert(at, next() as u8),
                    3 => damaged.truncate(at.max(1)),
                    _ => damaged[at] = [0, 0x7f, 0x80, 0xff][next() % 4],
                }
            }
            let (mut decoders, mut sink) = (ColumnDecoders::default(), Sink::default());
            sink.set_limit(100_000);
            let mut reader = Reader::new(&parcels[0], "test");
            decoders.decode(&mut reader, &origins, &expected, &mut sink).expect("sound");
            let mut reader = Reader::new(&damaged, "test");
            match decoders.decode(&mut reader, &origins, &expected, &mut sink) {
                Err(_) => wrong += 1,
                Ok(()) => {
                    let bytes: usize = (0..6).flat_map(|id| sink.column(id)).map(|span| span.len()).sum();
                    assert!(bytes <= 100_000);
                }
            }
            assert!(sink.arena().len() <= 100_000 && decoders.room_left() <= ROOM);
        }
    }
    assert!(wrong > 5000, "{wrong} of 24000 found: the damage does not reach the decoders");
}

#[test]
fn few_bytes_cannot_make_more_values_than_the_sink_allows() {
    let constant = |length: usize| {
        let mut bytes = vec![1, 0, 0x40, 0];
        crate::varint::put(&mut bytes, length as u64);
        bytes.extend(vec![b'x'; length]);
        bytes
    };
    let decode = |bytes: &[u8], count, limit| {
        let mut sink = Sink::default();
        sink.set_limit(limit);
        let (origins, expected) = origins(&[(0..count).collect()], &[], 0..1);
        let result =
            ColumnDecoders::default().decode(&mut Reader::new(bytes, "test"), &origins, &expected, &mut sink);
        (result, sink.memory())
    };
    assert!(decode(&constant(1000), 500, 500_000).0.is_ok());
    let (result, memory) = decode(&constant(1000), 501, 500_000);
    assert_eq!(result, Err(Error::Column { column: 0, fault: ColumnFault::TooLarge }));
    assert!(memory < 20_000);
    let too_many = Error::TooMuch { what: "values", actual: 1 << 20, limit: MAX_VALUES as u64 };
    assert_eq!(decode(&constant(1), 1 << 20, 1 << 30).0, Err(too_many));
    assert!(decode(&constant(2000), 1, 1 << 20).0.is_err(), "no encoder keeps a constant that long");
    assert!(decode(&[0], 0, 100).0.is_err(), "a column has values");
}
