//! Numbers written down and read back bit for bit, in any format.
//!
//! JSON has no infinity, and not every reader of it rounds correctly; the shortest decimal text that means a number does
//! both, and people can read it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serializer};

/// Writes a number as text.
pub(super) fn serialize<S: Serializer>(number: &f64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(number)
}

/// Reads a number from its text; what is not a number is refused.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    parse(&String::deserialize(d)?).map_err(D::Error::custom)
}

fn parse(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|e| format!("'{text}' is not a number: {e}"))?;
    if number.is_nan() { Err(format!("'{text}' is not a number")) } else { Ok(number) }
}

/// The same for arrays of a fixed length.
pub(super) mod array {
    use serde::de::Error as _;
    use serde::ser::SerializeTuple as _;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes each number as text.
    pub(in crate::analysis) fn serialize<const N: usize, S: Serializer>(
        numbers: &[f64; N],
        s: S,
    ) -> Result<S::Ok, S::Error> {
        let mut list = s.serialize_tuple(N)?;
        for number in numbers {
            list.serialize_element(&number.to_string())?;
        }
        list.end()
    }

    /// Reads exactly `N` numbers from their texts.
    pub(in crate::analysis) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        d: D,
    ) -> Result<[f64; N], D::Error> {
        let texts = Vec::<String>::deserialize(d)?;
        if texts.len() != N {
            return Err(D::Error::custom(format!("{} numbers where {N} are needed", texts.len())));
        }
        let mut numbers = [0.0; N];
        for (number, text) in numbers.iter_mut().zip(&texts) {
            *number = super::parse(text).map_err(D::Error::custom)?;
        }
        Ok(numbers)
    }
}
