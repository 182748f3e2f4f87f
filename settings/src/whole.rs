//! Whole numbers within bounds.

use serde::{Deserialize, Deserializer, de};

/// Reads a whole number from `MIN` to `MAX`, both of which `T` must hold: for `deserialize_with`, so that a number
/// outside is told with the bounds that the key has and not with those of `T`.
///
/// # Errors
/// With the bounds, when the number is outside.
pub fn whole<'de, D, T, const MIN: i64, const MAX: i64>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let found = i64::deserialize(deserializer)?;
    let within = (MIN..=MAX).contains(&found).then(|| T::try_from(found).ok()).flatten();
    within.ok_or_else(|| {
        de::Error::custom(format!("expected a whole number from {MIN} to {MAX}, found {found}"))
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::parse;

    #[derive(Debug, Deserialize)]
    struct Config {
        #[serde(deserialize_with = "super::whole::<_, _, 1, 64>")]
        lanes: u16,
    }

    #[test]
    fn a_number_outside_is_told_with_the_bounds_of_its_key() {
        let lanes =
            |value: &str| parse::<Config>("f", &format!("\nlanes = {value}")).map(|config| config.lanes);
        assert_eq!((lanes("1").unwrap(), lanes("64").unwrap()), (1, 64));
        for outside in ["-1", "0", "65", "70000"] {
            assert_eq!(
                lanes(outside).unwrap_err().to_string(),
                format!("f:2: `lanes`: expected a whole number from 1 to 64, found {outside}")
            );
        }
        assert!(lanes("'10'").unwrap_err().to_string().contains("a whole number, found string"));
    }
}
