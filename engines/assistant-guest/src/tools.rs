//! Calls of tools, as models write them into their answers: `<tool_call>{"name": …, "arguments": …}</tool_call>` (Hermes,
//! Qwen, SmolLM3 and others), or nothing but `{"name": …, "parameters": …}` (Llama 3).

use serde_json::{Map, Value};

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const PYTHON: &str = "<|python_tag|>"; // may stand before Llama 3's

/// A call, with its arguments as JSON.
#[derive(Debug, PartialEq)]
pub struct Call {
    pub name: String,
    pub arguments: String,
}

/// The way in which a model writes calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Marked,
    Bare,
}

impl Form {
    /// The form that a template asks its model for.
    pub fn of(template: &str) -> Form {
        if template.contains(OPEN) { Form::Marked } else { Form::Bare }
    }

    /// The key of the arguments, and what is before and after a call.
    pub fn shape(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Form::Marked => ("arguments", "<tool_call>\n", "\n</tool_call>"),
            Form::Bare => ("parameters", "", ""),
        }
    }
}

/// Tells text from calls, as an answer comes in.
pub struct Reader {
    form: Form,
    held: String, // what is, or may become, a call
    inside: bool,
    begun: bool, // text that is no call was shown: a bare call cannot follow
}

impl Reader {
    pub fn new(form: Form) -> Self {
        Reader { form, held: String::new(), inside: false, begun: false }
    }

    /// Takes a piece of the answer and returns what of it is text.
    pub fn push(&mut self, piece: &str) -> String {
        self.held.push_str(piece);
        if self.inside {
            return String::new();
        }
        match self.form {
            Form::Marked => self.text_before_mark(),
            Form::Bare => self.text_unless_call(),
        }
    }

    fn text_before_mark(&mut self) -> String {
        if let Some(at) = self.held.find(OPEN) {
            self.inside = true;
            let rest = self.held.split_off(at);
            return std::mem::replace(&mut self.held, rest).trim_end().to_string();
        }
        let kept = (1..OPEN.len()).rev().find(|&n| self.held.ends_with(&OPEN[..n])).unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - kept);
        std::mem::replace(&mut self.held, rest)
    }

    fn text_unless_call(&mut self) -> String {
        let start = self.held.trim_start();
        if !self.begun && (start.is_empty() || PYTHON.starts_with(start)) {
            return String::new(); // it cannot be told yet
        }
        if !self.begun && (start.starts_with('{') || start.starts_with(PYTHON)) {
            self.inside = true;
            return String::new();
        }
        self.begun = true;
        std::mem::take(&mut self.held)
    }

    /// The calls of the whole answer, or the text that was taken for one and is none.
    pub fn finish(self) -> Result<Vec<Call>, String> {
        let calls = if !self.inside {
            None
        } else if self.form == Form::Marked {
            marked(&self.held)
        } else {
            one(self.held.trim().trim_start_matches(PYTHON).trim()).map(|call| vec![call])
        };
        calls.filter(|c| !c.is_empty()).ok_or(self.held)
    }
}

fn marked(text: &str) -> Option<Vec<Call>> {
    text.split(OPEN).skip(1).map(|part| one(part.split(CLOSE).next().unwrap_or("").trim())).collect()
}

fn one(json: &str) -> Option<Call> {
    let Ok(Value::Object(call)) = serde_json::from_str(json) else { return None };
    let name = call.get("name")?.as_str()?.to_string();
    let arguments = match call.get("arguments").or_else(|| call.get("parameters")) {
        Some(Value::String(json)) => json.clone(),
        Some(object @ Value::Object(_)) => object.to_string(),
        Some(_) => return None,
        None => Value::Object(Map::new()).to_string(),
    };
    Some(Call { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: Form, pieces: &[&str]) -> (String, Result<Vec<Call>, String>) {
        let mut reader = Reader::new(form);
        let text = pieces.iter().map(|p| reader.push(p)).collect();
        (text, reader.finish())
    }

    fn call(name: &str, arguments: &str) -> Call {
        Call { name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn marked_calls_in_pieces() {
        let (text, calls) = read(
            Form::Marked,
            &["I look.\n", "<tool", "_call>\n{\"name\": \"f\", ", "\"arguments\": {\"x\": 1}}\n</tool_call>\n<tool_call>{\"name\":\"g\"}</tool_call>"],
        );
        assert_eq!(text, "I look.\n");
        assert_eq!(calls, Ok(vec![call("f", "{\"x\":1}"), call("g", "{}")]));
    }

    #[test]
    fn text_that_only_looks_like_a_call() {
        assert_eq!(read(Form::Marked, &["a <too", "k"]), ("a <took".into(), Err("".into())));
        assert_eq!(read(Form::Marked, &["a <tool_"]), ("a ".into(), Err("<tool_".into())));
        assert_eq!(read(Form::Marked, &["<tool_call>{\"na"]), ("".into(), Err("<tool_call>{\"na".into())));
        assert_eq!(read(Form::Bare, &["{\"a\": 1}"]), ("".into(), Err("{\"a\": 1}".into())));
    }

    #[test]
    fn bare_calls() {
        let want = Ok(vec![call("f", "{\"x\":1}")]);
        assert_eq!(read(Form::Bare, &["\n", "{\"name\": \"f\", \"parameters\"", ": {\"x\": 1}}"]), ("".into(), want));
        assert_eq!(read(Form::Bare, &["<|python", "_tag|>{\"name\": \"f\"}"]), ("".into(), Ok(vec![call("f", "{}")])));
        assert_eq!(read(Form::Bare, &["Hello", " {\"name\": 1}"]), ("Hello {\"name\": 1}".into(), Err("".into())));
    }
}
