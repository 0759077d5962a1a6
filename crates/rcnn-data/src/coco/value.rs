//! Values of COCO's JSON as Python reads them: of whatever type, where the meaning is clear.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A value of any type; a missing one is null.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value {
    #[default]
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Object,
}

impl Value {
    /// A number, which may stand in quotes.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    /// Whether a flag is set, as 1, `true` or `"1"`. Any other number sets it too, -1 for instance.
    pub(super) fn flag(&self) -> Option<bool> {
        match self {
            Self::Null => Some(false),
            Self::Bool(flag) => Some(*flag),
            Self::Text(text) => match text.trim().to_lowercase().as_str() {
                "" | "false" | "no" => Some(false),
                "true" | "yes" => Some(true),
                text => text.parse::<f64>().ok().map(|number| number != 0.0),
            },
            _ => self.number().map(|number| number != 0.0),
        }
    }

    /// A text, or a number as text.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Integer(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// An id: 7, 7.0 and `"7"` are the same.
    pub(super) fn id(&self) -> Option<Id> {
        match self {
            Self::Integer(number) => Some(Id::Number(*number)),
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                Some(Id::Number(*number as i128))
            }
            Self::Float(number) if !number.is_nan() => Some(Id::Text(number.to_string())),
            Self::Text(text) => Some(match text.parse::<i128>() {
                // `007` is a name.
                Ok(number) if number.to_string() == *text => Id::Number(number),
                _ => Id::Text(text.clone()),
            }),
            _ => None,
        }
    }
}

/// For messages.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Null => f.write_str("missing"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Object => f.write_str("an object"),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Object)
    }
}

/// The id of an image or a category.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Id {
    Number(i128),
    Text(String),
}

impl Id {
    /// The number that it is, if results can carry it.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => (*number).try_into().ok(),
            Self::Text(_) => None,
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// JSON with `NaN` and `Infinity`, which Python writes and JSON has no words for, in quotes.
pub(super) fn quote_not_finite(json: &str) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let (bytes, mut quoted, mut copied) = (json.as_bytes(), String::new(), 0);
    let (mut place, mut in_text) = (0, false);
    while place < bytes.len() {
        match bytes[place] {
            b'\\' if in_text => place += 1,
            b'"' => in_text = !in_text,
            b'N' | b'-' | b'I' if !in_text => {
                let word = WORDS.iter().find(|word| json[place..].starts_with(*word));
                if let Some(word) = word {
                    quoted += &json[copied..place];
                    quoted += &format!("\"{word}\"");
                    place += word.len();
                    copied = place;
                    continue;
                }
            }
            _ => {}
        }
        place += 1;
    }
    match copied {
        0 => Cow::Borrowed(json),
        _ => Cow::Owned(quoted + &json[copied..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_other_types_with_a_clear_meaning() {
        let value = |json: &str| serde_json::from_str::<Value>(json).unwrap();
        for json in ["7", "7.0", "\"7\"", "7e0"] {
            assert_eq!(value(json).id(), Some(Id::Number(7)), "{json}");
            assert_eq!(value(json).id().unwrap().number(), Some(7));
        }
        for json in ["\"BloodImage_00007\"", "\"007\"", "-1", "1e300"] {
            assert_eq!(value(json).id().unwrap().number(), None, "{json}");
        }
        assert_eq!(
            value("18446744073709551615").id().unwrap().number(),
            Some(u64::MAX)
        );
        for json in ["null", "true", "[7]", "{\"a\": 7}"] {
            assert_eq!(value(json).id(), None, "{json}");
        }
        for (json, flag) in [
            ("1", Some(true)),
            ("true", Some(true)),
            ("1.0", Some(true)),
            ("\"1\"", Some(true)),
            ("-1", Some(true)),
            ("0", Some(false)),
            ("\"0\"", Some(false)),
            ("false", Some(false)),
            ("null", Some(false)),
            ("\"no\"", Some(false)),
            ("\"maybe\"", None),
            ("[]", None),
        ] {
            assert_eq!(value(json).flag(), flag, "{json}");
        }
        assert_eq!(value("\"640\"").number(), Some(640.0));
        assert!(value("\"NaN\"").number().unwrap().is_nan());
    }

    #[test]
    fn what_json_has_no_words_for_is_quoted() {
        let same = r#"{"NaN": "\"NaN, Infinity", "a": -1}"#;
        assert!(matches!(quote_not_finite(same), Cow::Borrowed(_)));
        let json = r#"{"a": NaN, "b": [-Infinity, Infinity], "c\\": "é NaN", "d": NaN}"#;
        let expected =
            r#"{"a": "NaN", "b": ["-Infinity", "Infinity"], "c\\": "é NaN", "d": "NaN"}"#;
        assert_eq!(quote_not_finite(json), expected);
    }
}
