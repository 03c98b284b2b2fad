//! Answers in the form of OpenAI's API.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::tools::Call;

/// Token counts.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub prompt: u64,
    pub completion: u64,
}

impl Usage {
    fn json(self) -> Value {
        json!({"prompt_tokens": self.prompt, "completion_tokens": self.completion, "total_tokens": self.prompt + self.completion})
    }
}

/// What all events of an answer, or the one object of it, have in common.
pub struct Wire {
    chat: bool,
    id: String,
    created: u64,
    model: String,
    usage: bool,                   // every event has usage, null but for the last
    plain: (String, &'static str), // what an event with text alone has before and after it: most events are such
}

pub const DONE: &str = "data: [DONE]\n\n";

/// An event of a stream.
pub fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

impl Wire {
    pub fn new(chat: bool, model: &str, usage: bool, random: u128) -> Self {
        let prefix = if chat { "chatcmpl" } else { "cmpl" };
        let mut wire = Wire { chat, id: format!("{prefix}-{random:032x}"), created: now(), model: model.into(), usage, plain: (String::new(), "") };
        wire.plain = wire.around_text();
        wire
    }

    /// What is before and after the text in an event that has nothing else. An interpreted guest takes a third of a millisecond to
    /// build such an event anew, which is a thirtieth of a small model's token.
    fn around_text(&self) -> (String, &'static str) {
        let head = format!(
            r#"data: {{"id":{},"object":{},"created":{},"model":{},"choices":[{{"index":0,"#,
            json!(self.id),
            json!(self.object(true)),
            self.created,
            json!(self.model)
        );
        let key = if self.chat { r#""delta":{"content":"# } else { r#""text":"# };
        let tail = match (self.chat, self.usage) {
            (true, true) => "},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
            (true, false) => "},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            (false, true) => ",\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
            (false, false) => ",\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        };
        (head + key, tail)
    }

    fn object(&self, stream: bool) -> &'static str {
        match (self.chat, stream) {
            (true, true) => "chat.completion.chunk",
            (true, false) => "chat.completion",
            (false, _) => "text_completion",
        }
    }

    fn envelope(&self, stream: bool, choices: Value, usage: Option<Value>) -> String {
        let mut object = json!({"id": self.id, "object": self.object(stream), "created": self.created, "model": self.model, "choices": choices});
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object.to_string()
    }

    fn choice(&self, content: Value, logprobs: Value, finish: Option<&str>, stream: bool) -> Value {
        let key = match (self.chat, stream) {
            (true, true) => "delta",
            (true, false) => "message",
            (false, _) => "text",
        };
        json!({"index": 0, key: content, "logprobs": logprobs, "finish_reason": finish})
    }

    fn chunk(&self, content: Value, logprobs: Value, finish: Option<&str>) -> String {
        let null = self.usage.then_some(Value::Null);
        event(&self.envelope(true, json!([self.choice(content, logprobs, finish, true)]), null))
    }

    /// The first event of a chat: who speaks.
    pub fn begin(&self) -> String {
        if self.chat { self.chunk(json!({"role": "assistant", "content": ""}), Value::Null, None) } else { String::new() }
    }

    /// An event with a piece of the text.
    pub fn text(&self, piece: &str, logs: &[Value]) -> String {
        if logs.is_empty() {
            let (before, after) = &self.plain;
            return format!("{before}{}{after}", json!(piece));
        }
        let content = if self.chat { json!({"content": piece}) } else { json!(piece) };
        self.chunk(content, self.logprobs(logs), None)
    }

    /// An event with a call of a tool.
    pub fn call(&self, index: usize, call: &Call) -> String {
        self.chunk(json!({"tool_calls": [self.call_object(index, call, true)]}), Value::Null, None)
    }

    fn call_object(&self, index: usize, call: &Call, stream: bool) -> Value {
        let mut object = json!({
            "id": format!("call_{}_{index}", &self.id[self.id.len() - 20..]), "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        });
        if stream {
            object["index"] = json!(index);
        }
        object
    }

    /// The last events of a stream.
    pub fn end(&self, finish: &str, usage: Usage) -> String {
        let empty = if self.chat { json!({}) } else { json!("") };
        let mut events = self.chunk(empty, Value::Null, Some(finish));
        if self.usage {
            events += &event(&self.envelope(true, json!([]), Some(usage.json())));
        }
        events + DONE
    }

    /// A whole answer.
    pub fn whole(&self, text: &str, calls: &[Call], logs: &[Value], finish: &str, usage: Usage) -> String {
        let content = if !self.chat {
            json!(text)
        } else if calls.is_empty() {
            json!({"role": "assistant", "content": text})
        } else {
            let calls: Vec<Value> = calls.iter().enumerate().map(|(i, c)| self.call_object(i, c, false)).collect();
            json!({"role": "assistant", "content": if text.is_empty() { Value::Null } else { json!(text) }, "tool_calls": calls})
        };
        self.envelope(false, json!([self.choice(content, self.logprobs(logs), Some(finish), false)]), Some(usage.json()))
    }

    /// Log probabilities, each as a chat has them, in the form of the endpoint; null if there are none.
    fn logprobs(&self, logs: &[Value]) -> Value {
        if logs.is_empty() {
            return Value::Null;
        }
        if self.chat {
            return json!({"content": logs, "refusal": null});
        }
        let top = |log: &Value| -> Value {
            let others = log["top_logprobs"].as_array().into_iter().flatten();
            others.map(|t| (t["token"].as_str().unwrap_or("").to_string(), t["logprob"].clone())).collect::<serde_json::Map<_, _>>().into()
        };
        json!({
            "tokens": logs.iter().map(|l| l["token"].clone()).collect::<Vec<_>>(),
            "token_logprobs": logs.iter().map(|l| l["logprob"].clone()).collect::<Vec<_>>(),
            "top_logprobs": logs.iter().map(top).collect::<Vec<_>>(),
        })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// An answer with vectors.
pub fn embeddings(model: &str, vectors: &[Vec<f32>], base64: bool, prompt: u64) -> String {
    let data: Vec<String> = vectors
        .iter()
        .enumerate()
        .map(|(i, v)| {
            // Written as floats: as the wider numbers of a Value they would be twice as long.
            let vector = if base64 { json!(encode(v)).to_string() } else { serde_json::to_string(v).unwrap_or_default() };
            format!(r#"{{"object":"embedding","index":{i},"embedding":{vector}}}"#)
        })
        .collect();
    let usage = json!({"prompt_tokens": prompt, "total_tokens": prompt});
    format!(r#"{{"object":"list","data":[{}],"model":{},"usage":{usage}}}"#, data.join(","), json!(model))
}

/// Base64 (RFC 4648) of the numbers as little-endian floats.
fn encode(vector: &[f32]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|f| f.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().enumerate().fold(0u32, |bits, (i, &b)| bits | u32::from(b) << (16 - 8 * i));
        for i in 0..4 {
            out.push(if i <= three.len() { LETTERS[(bits >> (18 - 6 * i)) as usize & 63] as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(events: &str) -> Vec<Value> {
        events.split("\n\n").filter_map(|e| serde_json::from_str(e.strip_prefix("data: ")?).ok()).collect()
    }

    #[test]
    fn a_stream() {
        let wire = Wire::new(true, "m", true, 7);
        let events = data(&(wire.begin() + &wire.text("Hi", &[]) + &wire.end("stop", Usage { prompt: 2, completion: 1 })));
        assert_eq!(events.len(), 4);
        assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
        assert_eq!(events[1]["choices"][0], json!({"index": 0, "delta": {"content": "Hi"}, "logprobs": null, "finish_reason": null}));
        assert_eq!(events[2]["choices"][0]["finish_reason"], "stop");
        assert_eq!((&events[2]["usage"], &events[3]["usage"]["total_tokens"], &events[3]["choices"]), (&Value::Null, &json!(3), &json!([])));
        assert!(events.iter().all(|e| e["id"] == "chatcmpl-00000000000000000000000000000007" && e["object"] == "chat.completion.chunk"));
        assert!(!Wire::new(true, "m", false, 7).end("stop", Usage::default()).contains("usage"));
    }

    #[test]
    fn events_with_text_alone_are_as_the_others() {
        for (chat, usage) in [(true, true), (true, false), (false, true), (false, false)] {
            let wire = Wire::new(chat, "a \"model\"", usage, 7);
            let content = if chat { json!({"content": "é\n\""}) } else { json!("é\n\"") };
            assert_eq!(wire.text("é\n\"", &[]), wire.chunk(content, Value::Null, None));
        }
    }

    #[test]
    fn whole_answers() {
        let call = Call { name: "f".into(), arguments: "{}".into() };
        let chat: Value = serde_json::from_str(&Wire::new(true, "m", false, 7).whole("", &[call], &[], "tool_calls", Usage::default())).unwrap();
        let message = &chat["choices"][0]["message"];
        assert_eq!((&message["content"], &message["tool_calls"][0]["function"]["name"]), (&Value::Null, &json!("f")));
        let logs = [json!({"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": [{"token": "b", "logprob": -2.0, "bytes": [98]}]})];
        let text: Value = serde_json::from_str(&Wire::new(false, "m", false, 7).whole("a", &[], &logs, "length", Usage::default())).unwrap();
        assert_eq!(text["choices"][0]["text"], "a");
        assert_eq!(text["choices"][0]["logprobs"], json!({"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -2.0}]}));
    }

    #[test]
    fn vectors() {
        let answer = embeddings("m", &[vec![0.1, -2.0]], false, 3);
        assert_eq!(
            answer,
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2.0]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
        assert!(embeddings("m", &[vec![1.0]], true, 3).contains(r#""embedding":"AACAPw==""#));
    }

    #[test]
    fn base64() {
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -2.5]), "AACAPwAAIMA=");
        assert_eq!(encode(&[0.0, 0.0, 0.0]), "AAAAAAAAAAAAAAAA");
    }
}
