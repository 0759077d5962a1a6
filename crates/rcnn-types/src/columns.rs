//! Columns of text tables.

use unicode_width::UnicodeWidthStr;

/// Width of a text in a terminal, in which a Chinese character takes two columns.
pub fn text_columns(text: &str) -> usize {
    text.width()
}

/// Pads a text with blanks to a width in columns. What would move the cursor or turn the line's direction is a
/// blank.
pub fn pad_to_columns(text: &str, columns: usize) -> String {
    let moves =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let text = text.replace(moves, " ");
    let blanks = columns.saturating_sub(text_columns(&text));
    format!("{text}{:blanks$}", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        assert_eq!(pad_to_columns("RBC", 6), "RBC   ");
        assert_eq!(pad_to_columns("\u{8840}\u{5c0f}", 6), "\u{8840}\u{5c0f}  ");
        assert_eq!(pad_to_columns("u\u{308}", 2), "u\u{308} ");
        assert_eq!(pad_to_columns("longer", 2), "longer");
        assert_eq!(pad_to_columns("a\tb\u{202e}c", 6), "a b c ");
    }
}
