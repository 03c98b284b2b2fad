//! The text of one answer, as its tokens come in.

/// Turns the bytes of tokens into text that may be shown: whole characters, and nothing of a stop string, not even its
/// beginning.
#[derive(Default)]
pub struct Text {
    stops: Vec<String>,
    bytes: Vec<u8>, // of a character that is not whole yet
    held: String,   // what may be the beginning of a stop string
    pub stopped: bool,
}

impl Text {
    pub fn new(stops: Vec<String>) -> Self {
        Text { stops, ..Default::default() }
    }

    /// Takes one more token's bytes and returns what may be shown now.
    pub fn push(&mut self, piece: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(piece);
        let whole = whole_characters(&self.bytes);
        self.held.push_str(&String::from_utf8_lossy(&self.bytes[..whole]));
        self.bytes.drain(..whole);
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let kept = self.stops.iter().map(|s| overlap(&self.held, s)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// Returns what was still held back.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        if !self.stopped {
            text.push_str(&String::from_utf8_lossy(&self.bytes));
        }
        self.bytes.clear();
        text
    }
}

/// How many of the bytes are whole characters, or can never become one.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(e) if e.error_len().is_none() => e.valid_up_to(),
        // Wrong in the middle: only what may still become a character at the end waits.
        Err(e) => {
            let after = e.valid_up_to() + e.error_len().unwrap_or(0);
            after + whole_characters(&bytes[after..])
        }
    }
}

/// How long the longest end of text is that a stop string begins with.
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1)).rev().find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut text = Text::new(stops.iter().map(|s| s.to_string()).collect());
        let mut shown: Vec<String> = pieces.iter().map(|p| text.push(p)).collect();
        shown.push(text.finish());
        (shown, text.stopped)
    }

    #[test]
    fn a_stop_string_over_several_tokens_is_not_shown() {
        assert_eq!(all(&["\nUser:"], &[b"Hi", b"\n", b"Us", b"er", b": x"]), (vec!["Hi".into(), "".into(), "".into(), "".into(), "".into(), "".into()], true));
    }

    #[test]
    fn what_only_looked_like_a_stop_string_is_shown() {
        assert_eq!(all(&["abc"], &[b"xab", b"abd"]), (vec!["x".into(), "ababd".into(), "".into()], false));
        assert_eq!(all(&["abc"], &[b"xab"]), (vec!["x".into(), "ab".into()], false));
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(all(&["d", "b"], &[b"abcd"]), (vec!["a".into(), "".into()], true));
    }

    #[test]
    fn characters_of_several_tokens_come_whole() {
        let smile = "😀".as_bytes();
        assert_eq!(all(&[], &[&smile[..1], &smile[1..3], &smile[3..]]), (vec!["".into(), "".into(), "😀".into(), "".into()], false));
        assert_eq!(all(&[], &[&smile[..2]]), (vec!["".into(), "\u{fffd}".into()], false));
        assert_eq!(all(&[], &[b"a\xffb", b"c"]), (vec!["a\u{fffd}b".into(), "c".into(), "".into()], false));
    }

    #[test]
    fn a_stop_string_in_other_scripts() {
        assert_eq!(all(&["終わり"], &["あ終".as_bytes(), "わり!".as_bytes()]), (vec!["あ".into(), "".into(), "".into()], true));
    }
}
