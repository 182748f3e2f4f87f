//! Text that is the same in all rows but for runs of digits: each run is a column of numbers.
//!
//! ```text
//! parameters | runs, per literal: length, bytes; per run: digits if always as many (else 0), predictor |
//! body       | the differences of the first run of all rows, those of the second, ...                  |
//! ```

use super::decode::Bytes;
use super::digits::{Digits, parse_digits};
use super::number::{unzigzag, zigzag};
use super::sink::Sink;
use super::{ColumnFault, Values, equal};
use crate::Error;
use crate::varint::{Reader, put};

/// Literals and the runs between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// One more than there are runs.
    literals: Vec<Box<[u8]>>,
    runs: Vec<Run>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Digits that each row has, zeros in front included; 0 for numbers without zeros in front.
    width: u8,
    predictor: Predictor,
}

/// What the number of a run is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Predictor {
    /// The same run of the row before.
    Above,
    /// The run before it in the row.
    Left,
    /// The last run of the row before.
    LastAbove,
}

const PREDICTORS: [Predictor; 3] = [Predictor::Above, Predictor::Left, Predictor::LastAbove];

/// The numbers of the last row.
#[derive(Debug, Default)]
pub(super) struct Rows {
    last: Vec<i64>,
}

const MAX_RUNS: usize = 12;
const MAX_DIGITS: usize = 18;
/// Longest value that makes a pattern.
const MAX_TEXT: usize = 256;

impl Pattern {
    /// The pattern of all `values`, if they have one, with the predictors that leave least.
    pub(super) fn of(values: Values<'_>) -> Option<Self> {
        let first = values.get(0);
        if first.len() > MAX_TEXT {
            return None;
        }
        let (mut literals, mut runs) = (vec![Vec::new()], Vec::new());
        let mut at = 0;
        while at < first.len() {
            let digits = first[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                literals.last_mut()?.push(first[at]);
                at += 1;
            } else {
                runs.push(Run { width: digits as u8, predictor: Predictor::Above });
                literals.push(Vec::new());
                at += digits;
            }
        }
        if runs.is_empty()
            || runs.len() > MAX_RUNS
            || runs.iter().any(|run| usize::from(run.width) > MAX_DIGITS)
        {
            return None;
        }
        let literals = literals.into_iter().map(Into::into).collect();
        let mut pattern = Self { literals, runs };
        // A run that is not always as long must be without zeros in front.
        let mut fixed = pattern.runs.clone();
        for value in values.iter() {
            let mut at = 0;
            for (run, literal) in fixed.iter_mut().zip(&pattern.literals) {
                let rest = value.get(at + literal.len()..)?;
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                if digits != usize::from(run.width) {
                    run.width = 0;
                }
                at += literal.len() + digits;
            }
        }
        pattern.runs = fixed;
        let mut grid = Vec::new();
        if !pattern.parse(values, &mut grid) {
            return None;
        }
        pattern.choose_predictors(&grid);
        Some(pattern)
    }

    fn choose_predictors(&mut self, grid: &[i64]) {
        let runs = self.runs.len();
        let bits = |run: usize, predictor: Predictor| -> u64 {
            let rows = grid.chunks_exact(runs).zip(grid.chunks_exact(runs).skip(1));
            let difference =
                |(above, row): (&[i64], &[i64])| row[run].wrapping_sub(expected(predictor, run, above, row));
            rows.map(|rows| u64::from(64 - zigzag(difference(rows)).leading_zeros())).sum()
        };
        for run in 0..runs {
            let usable = |predictor: &Predictor| run > 0 || *predictor != Predictor::Left;
            let best = PREDICTORS.into_iter().filter(usable).min_by_key(|predictor| bits(run, *predictor));
            self.runs[run].predictor = best.unwrap_or(Predictor::Above);
        }
    }

    /// The numbers of all runs, row by row; false if a value is not of this pattern.
    fn parse(&self, values: Values<'_>, grid: &mut Vec<i64>) -> bool {
        grid.clear();
        grid.reserve(values.len() * self.runs.len());
        (0..values.len()).all(|index| {
            let (mut at, end) = values.range(index);
            for (run, literal) in self.runs.iter().zip(&self.literals) {
                let from = at;
                at += literal.len();
                if at > end || !equal(&values.arena[from..at], literal) {
                    return false;
                }
                let rest = &values.arena[at..end];
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let fits = match run.width {
                    0 => digits == 1 || digits <= MAX_DIGITS && rest.first() != Some(&b'0'),
                    width => digits == usize::from(width),
                };
                match parse_digits(values.arena, at, at + digits) {
                    Some(number) if fits => grid.push(number as i64),
                    _ => return false,
                }
                at += digits;
            }
            self.literals.last().is_some_and(|literal| equal(&values.arena[at..end], literal))
        })
    }

    /// Appends the body; false (and nothing) if a value is not of this pattern.
    pub(super) fn put_values(
        &self,
        rows: &mut Rows,
        values: Values<'_>,
        grid: &mut Vec<i64>,
        out: &mut Vec<u8>,
    ) -> bool {
        if !self.parse(values, grid) {
            return false;
        }
        let runs = self.runs.len();
        rows.last.resize(runs, 0);
        for (run, Run { predictor, .. }) in self.runs.iter().enumerate() {
            let mut above = rows.last.as_slice();
            for row in grid.chunks_exact(runs) {
                put(out, zigzag(row[run].wrapping_sub(expected(*predictor, run, above, row))));
                above = row;
            }
        }
        rows.last.copy_from_slice(&grid[grid.len() - runs..]);
        true
    }

    pub(super) fn read_values(
        &self,
        rows: &mut Rows,
        quoted: bool,
        count: usize,
        bytes: &mut Bytes<'_, '_>,
        sink: &mut Sink,
    ) -> Result<(), Error> {
        let runs = self.runs.len();
        if count * runs > bytes.reader.remaining() {
            return Err(Error::Truncated { section: bytes.reader.section });
        }
        let mut grid = vec![0; count * runs];
        for run in 0..runs {
            for row in 0..count {
                grid[row * runs + run] = unzigzag(bytes.reader.number()?);
            }
        }
        rows.last.resize(runs, 0);
        let mut above = std::mem::take(&mut rows.last);
        let mut text = Vec::new();
        let mut digits = Digits::new();
        for row in grid.chunks_exact_mut(runs) {
            text.clear();
            for (run, literal) in self.literals.iter().enumerate() {
                text.extend_from_slice(literal);
                let Some(Run { width, predictor }) = self.runs.get(run) else { continue };
                let number = row[run].wrapping_add(expected(*predictor, run, &above, row));
                row[run] = number;
                let number = u64::try_from(number).map_err(|_| bytes.fault(ColumnFault::Number))?;
                digits.clear();
                digits.prepend_number(number, usize::from(*width).max(1));
                text.extend_from_slice(digits.as_bytes());
            }
            above.copy_from_slice(row);
            sink.push(&text, quoted).map_err(|fault| bytes.fault(fault))?;
        }
        rows.last = above;
        Ok(())
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put(out, self.runs.len() as u64);
        for literal in &self.literals {
            put(out, literal.len() as u64);
            out.extend_from_slice(literal);
        }
        for run in &self.runs {
            out.extend([run.width, run.predictor as u8]);
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, Error> {
        let count = reader.number()?;
        if !(1..=MAX_RUNS as u64).contains(&count) {
            return Ok(None);
        }
        let mut literals = Vec::new();
        for _ in 0..=count {
            let length = reader.number_u32()? as usize;
            if length > MAX_TEXT {
                return Ok(None);
            }
            literals.push(reader.take(length)?.into());
        }
        let mut runs = Vec::new();
        for run in 0..count {
            let (width, tag) = (reader.byte()?, reader.byte()?);
            let predictor = PREDICTORS.get(usize::from(tag)).copied();
            let Some(predictor) = predictor.filter(|predictor| run > 0 || *predictor != Predictor::Left)
            else {
                return Ok(None);
            };
            if usize::from(width) > MAX_DIGITS {
                return Ok(None);
            }
            runs.push(Run { width, predictor });
        }
        Ok(Some(Self { literals, runs }))
    }
}

/// What a run's number is compared with. `row` is known up to before `run`.
#[inline]
fn expected(predictor: Predictor, run: usize, above: &[i64], row: &[i64]) -> i64 {
    match predictor {
        Predictor::Above => above[run],
        Predictor::Left => row[run - 1],
        Predictor::LastAbove => above[above.len() - 1],
    }
}
