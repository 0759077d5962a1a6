//! Protocol buffers as text: `pipeline.config` and label maps.

/// A message: its fields in their order, of which each may stand there several times.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Message(Vec<(String, Value)>);

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    /// A number, a truth value or a name, as it is written.
    Word(String),
    /// Text in quotes.
    Text(String),
    Message(Message),
}

/// Messages inside one another, at most.
const MAX_DEPTH: usize = 64;

impl Message {
    /// A message without fields.
    pub(super) const EMPTY: Self = Self(Vec::new());

    /// Reads a text.
    ///
    /// # Errors
    /// The line and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        let message = parser.message(None, 0);
        message.map_err(|reason| {
            let line = 1 + text[..parser.at].matches('\n').count();
            format!("line {line}: {reason}")
        })
    }

    /// Every value of a field that is a message.
    pub(super) fn messages(&self, name: &str) -> impl Iterator<Item = &Message> {
        self.values(name).filter_map(|value| match value {
            Value::Message(message) => Some(message),
            _ => None,
        })
    }

    /// The last value of a field, if it is a message.
    pub(super) fn message(&self, name: &str) -> Option<&Message> {
        self.messages(name).last()
    }

    /// The message at the end of a path of fields.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Message> {
        path.iter()
            .try_fold(self, |message, name| message.message(name))
    }

    /// The last value of a field as text, in quotes or not.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.values(name).filter_map(text).last()
    }

    /// Every value of a field, as written.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(text)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &Value> {
        let fields = self.0.iter().filter(move |(field, _)| field == name);
        fields.map(|(_, value)| value)
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Word(text) | Value::Text(text) => Some(text),
        Value::Message(_) => None,
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next character after spaces and comments.
    fn peek(&mut self) -> Option<char> {
        loop {
            let rest = &self.text[self.at..];
            let next = rest.chars().next()?;
            match next {
                '#' => self.at += rest.find('\n').unwrap_or(rest.len()),
                _ if next.is_whitespace() => self.at += next.len_utf8(),
                _ => return Some(next),
            }
        }
    }

    /// Passes over a character, if it is the next.
    fn take(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.at += wanted.len_utf8();
        }
        is_next
    }

    /// Reads fields up to the closing bracket, or the end of the text.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Message, String> {
        if depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} messages inside one another"));
        }
        let mut message = Message::default();
        loop {
            match (self.peek(), end) {
                (None, None) => return Ok(message),
                (None, Some(end)) => return Err(format!("`{end}` is missing")),
                (next, Some(end)) if next == Some(end) => {
                    self.take(end);
                    return Ok(message);
                }
                _ => {}
            }
            let name = self.word().ok_or("a name is expected")?.to_string();
            let colon = self.take(':');
            if self.take('[') {
                while !self.take(']') {
                    message.0.push((name.clone(), self.value(depth)?));
                    self.take(',');
                }
            } else if colon || matches!(self.peek(), Some('{' | '<')) {
                message.0.push((name, self.value(depth)?));
            } else {
                return Err(format!("`{name}` has no value"));
            }
            while self.take(',') || self.take(';') {}
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, String> {
        if self.take('{') {
            return Ok(Value::Message(self.message(Some('}'), depth + 1)?));
        }
        if self.take('<') {
            return Ok(Value::Message(self.message(Some('>'), depth + 1)?));
        }
        let mut text = None;
        while let Some(quote @ ('"' | '\'')) = self.peek() {
            let joined: &mut String = text.get_or_insert_default();
            self.quoted(quote, joined)?;
        }
        match text {
            Some(text) => Ok(Value::Text(text)),
            None => Ok(Value::Word(
                self.word().ok_or("a value is expected")?.to_string(),
            )),
        }
    }

    /// A name, a number or a truth value.
    fn word(&mut self) -> Option<&'a str> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | '/');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += length;
        (length > 0).then(|| &rest[..length])
    }

    fn quoted(&mut self, quote: char, into: &mut String) -> Result<(), String> {
        self.take(quote);
        let mut characters = self.text[self.at..].char_indices();
        while let Some((at, character)) = characters.next() {
            match character {
                _ if character == quote => {
                    self.at += at + quote.len_utf8();
                    return Ok(());
                }
                '\n' => break,
                '\\' => match characters.next() {
                    Some((_, 'n')) => into.push('\n'),
                    Some((_, 't')) => into.push('\t'),
                    Some((_, other)) => into.push(other),
                    None => break,
                },
                _ => into.push(character),
            }
        }
        Err("a text is not closed".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pipelines_are_written_like() {
        let text = r#"
            # The model.
            model {
              faster_rcnn: < num_classes: 90 image_resizer { keep_aspect_ratio_resizer {
                min_dimension: 600, max_dimension: 1024; } } >
              scales: [0.25, 0.5] scales: 1.0
              name: 'a "b"' "\\c"  # joined
            }
        "#;
        let message = Message::parse(text).unwrap();
        let model = message.message("model").unwrap();
        let resizer = ["faster_rcnn", "image_resizer", "keep_aspect_ratio_resizer"];
        assert_eq!(
            model.at(&resizer).unwrap().text("max_dimension"),
            Some("1024")
        );
        assert_eq!(
            model.texts("scales").collect::<Vec<_>>(),
            ["0.25", "0.5", "1.0"]
        );
        assert_eq!(model.text("name"), Some("a \"b\"\\c"));
        assert!(model.at(&["faster_rcnn", "other"]).is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let deep = "a {".repeat(100_000);
        for (text, says) in [
            ("a: 1\nb", "line 2: `b` has no value"),
            ("a: {", "`}` is missing"),
            ("a: \"b\nc", "line 1: a text is not closed"),
            ("}", "a name is expected"),
            ("a: }", "a value is expected"),
            ("a: [1, 2", "a value is expected"),
            (&deep, "more than 64 messages"),
        ] {
            let error = Message::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
