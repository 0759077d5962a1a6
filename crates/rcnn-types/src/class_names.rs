//! Lists of class names, as files have them.

use std::collections::HashMap;

/// The name of class 0, which no object has.
pub const BACKGROUND: &str = "__background__";

/// Name that COCO's detectors give the numbers of categories that were given up.
pub const UNUSED: &str = "N/A";

/// Error for class names that do not fit a model's classes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassNamesError {
    /// There are more or fewer names than classes.
    #[error("{found} names, but the model has {expected} classes besides the background")]
    Count {
        /// The names, without the background's.
        found: usize,
        /// The classes, without the background.
        expected: usize,
    },
    /// There is a name for the background too, but it is another.
    #[error(
        "{found} names, but the model has {expected} classes besides the background; one more is \
         right if the first is `{BACKGROUND}`, not `{first}`"
    )]
    NotBackground {
        /// The names.
        found: usize,
        /// The classes, without the background.
        expected: usize,
        /// The first name.
        first: String,
    },
    /// Two classes have one name.
    #[error("lines {first} and {second} are both `{name}`")]
    Duplicate {
        /// The name.
        name: String,
        /// Its first line, from 1.
        first: usize,
        /// Its second line.
        second: usize,
    },
    /// A class has no name.
    #[error("line {line} is blank")]
    Blank {
        /// The line, from 1.
        line: usize,
    },
}

/// Reads the names of a model's classes, one per line, with or without the background first. Returned are
/// `num_classes` names, the background's first.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; }
/// use rcnn_burn::types::parse_class_names;
///
/// let names = parse_class_names("cat\ndog\n", 3)?;
/// assert_eq!(names, ["__background__", "cat", "dog"]);
/// assert!(parse_class_names("cat\ndog\nbird\n", 3).is_err());
/// # Ok::<(), rcnn_types::ClassNamesError>(())
/// ```
///
/// # Errors
/// If there are more or fewer names than classes, a blank line between them, or a name twice (but for
/// [`UNUSED`]).
pub fn parse_class_names(text: &str, num_classes: usize) -> Result<Vec<String>, ClassNamesError> {
    let text = text.trim_start_matches('\u{feff}').trim_end();
    let mut names: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
    let mut lines = HashMap::new();
    for (name, line) in names.iter().zip(1..) {
        if name.is_empty() {
            return Err(ClassNamesError::Blank { line });
        }
        if let Some(first) = lines.insert(name.as_str(), line)
            && name != UNUSED
        {
            return Err(ClassNamesError::Duplicate {
                name: name.clone(),
                first,
                second: line,
            });
        }
    }
    let (found, expected) = (names.len(), num_classes.saturating_sub(1));
    match names.first() {
        Some(first) if is_background(first) => names[0] = BACKGROUND.into(),
        Some(first) if found == num_classes => {
            let first = first.clone();
            return Err(ClassNamesError::NotBackground {
                found,
                expected,
                first,
            });
        }
        _ => names.insert(0, BACKGROUND.into()),
    }
    match names.len() == num_classes {
        true => Ok(names),
        false => Err(ClassNamesError::Count {
            found: names.len() - 1,
            expected,
        }),
    }
}

/// Label of the class that a name or a number stands for.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_types as types; pub use rcnn_types::*; }
/// use rcnn_burn::types::find_class;
///
/// let names = ["__background__", "cat", "dog"].map(String::from);
/// assert_eq!(find_class("dog", &names, 3), Some(2));
/// assert_eq!(find_class("1", &names, 3), Some(1));
/// assert_eq!(find_class("bird", &names, 3), None);
/// assert_eq!(find_class("__background__", &names, 3), None);
/// ```
pub fn find_class(wanted: &str, names: &[String], num_classes: usize) -> Option<usize> {
    let named = names.iter().position(|name| name == wanted);
    let number = || wanted.parse().ok();
    named
        .or_else(number)
        .filter(|n| (1..num_classes).contains(n))
}

/// Name of a class; its number where it has no name.
pub fn class_name(names: &[String], label: usize) -> String {
    let name = names.get(label).cloned();
    name.unwrap_or_else(|| label.to_string())
}

fn is_background(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("background") || name == "bg"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_the_background() {
        let expected = [BACKGROUND, "cat", "big dog"];
        for text in [
            "cat\nbig dog",
            "\u{feff}cat\r\n big dog \r\n\r\n",
            "__background__\ncat\nbig dog\n",
            "Background\ncat\nbig dog\n",
        ] {
            assert_eq!(parse_class_names(text, 3).unwrap(), expected, "{text:?}");
        }
        let names = parse_class_names("a\nN/A\nb\nN/A\n", 5).unwrap();
        assert_eq!(names[1..], ["a", "N/A", "b", "N/A"]);
    }

    /// The first of one name too many was taken for the background's, and all others moved up.
    #[test]
    fn one_name_too_many_does_not_shift_the_others() {
        let says = |text: &str| parse_class_names(text, 3).unwrap_err().to_string();
        let text = says("cat\ndog\nbird\n");
        assert!(text.contains("3 names") && text.contains("`cat`"), "{text}");
        assert!(says("cat\n").starts_with("1 names, but the model has 2"));
        assert!(says("").starts_with("0 names"));
        assert!(says("background\ncat\n").starts_with("1 names"));
        assert!(says("background\ncat\ndog\nbird\n").starts_with("3 names"));
        assert_eq!(says("cat\ncat\n"), "lines 1 and 2 are both `cat`");
        assert_eq!(says("cat\n\ndog\n"), "line 2 is blank");
    }
}
