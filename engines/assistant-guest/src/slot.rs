//! A slot: a context of the model, and the answer that is being made in it.

use serde_json::{Map, Value};

use crate::choose::Free;
use crate::error::Error;
use crate::frames::{DATA, END, HEAD, put};
use crate::nn::{self, Context};
use crate::request::Request;
use crate::text::Text;
use crate::tools;
use crate::wire::{Usage, Wire, event};

/// The plug-in is still at the prompt: ask again.
const BUSY: u32 = 4;

pub struct Slot {
    context: Context,
    seen: String,  // the prompt and answer before, whose tokens the cache may still hold
    pub used: u64, // when it was last given a request
    job: Option<Job>,
}

struct Job {
    stream: u32,
    wire: Wire,
    streams: bool,
    most: Option<u64>,
    logprobs: bool,
    tools: Option<tools::Reader>,
    text: Text,
    begun: bool, // the head was sent
    usage: Usage,
    answer: String,   // of the model, as far as it was shown or held
    whole: String,    // the text for a client that wants it whole
    logs: Vec<Value>, // of tokens whose text was not shown yet, or of all
}

impl Slot {
    pub fn new(context: Context) -> Self {
        Slot { context, seen: String::new(), used: 0, job: None }
    }

    /// The stream that is answered.
    pub fn stream(&self) -> Option<u32> {
        self.job.as_ref().map(|j| j.stream)
    }

    /// The slot as one for the prompt; `None` if it is at work.
    pub fn free(&self, index: usize, prompt: &str) -> Option<Free> {
        let shares = self.seen.bytes().zip(prompt.bytes()).take_while(|(a, b)| a == b).count();
        self.job.is_none().then_some(Free { index, seen: self.seen.len(), shares, used: self.used })
    }

    /// What is known of the prompt and the answer.
    pub fn known(&mut self) -> Value {
        self.context.known().ok().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default()
    }

    pub fn set_prompt(&mut self, prompt: &str) -> Result<(), u32> {
        self.context.set_prompt(prompt)
    }

    /// Begins an answer. `settings` are those the model was loaded with: a plug-in may want all of them again.
    pub fn start(&mut self, stream: u32, request: Request, settings: &Map<String, Value>, window: u64, random: u128) -> Result<(), Error> {
        let mut options = settings.clone();
        options.extend(request.options);
        let failed = |errno| Error::engine(format!("the WASI-NN plug-in refused the request (error {errno})"));
        self.context.set_options(&Value::from(options).to_string()).map_err(failed)?;
        self.context.set_prompt(&request.prompt).map_err(failed)?;
        let prompt = self.known()["input_tokens"].as_u64().unwrap_or(0);
        if prompt >= window {
            return Err(too_long(request.chat, prompt, window));
        }
        self.seen = request.prompt;
        self.job = Some(Job {
            stream,
            wire: Wire::new(request.chat, &request.model, request.usage && request.stream, random),
            streams: request.stream,
            most: request.most,
            logprobs: request.logprobs.is_some(),
            tools: request.tools.map(tools::Reader::new),
            text: Text::new(request.stops),
            begun: false,
            usage: Usage { prompt, completion: 0 },
            answer: String::new(),
            whole: String::new(),
            logs: Vec::new(),
        });
        Ok(())
    }

    /// Makes one more token, and sends what comes of it.
    pub fn step(&mut self, out: &mut Vec<u8>) {
        let Some(mut job) = self.job.take() else { return };
        match self.context.next() {
            Ok(()) => {
                if self.token(&mut job, out) {
                    self.job = Some(job);
                    return;
                }
            }
            Err(BUSY) => {
                self.job = Some(job);
                return;
            }
            Err(nn::END_OF_SEQUENCE) => job.end(self.reason(), out),
            Err(nn::CONTEXT_FULL) => job.end("length", out),
            Err(nn::PROMPT_TOO_LONG) => job.fail(&too_long(true, job.usage.prompt, job.usage.prompt), out),
            Err(nn::INVALID_ARGUMENT) if !job.begun => job.fail(&Error::unsupported("response_format", "the grammar of this request cannot be used"), out),
            Err(errno) => job.fail(&Error::engine(format!("the WASI-NN plug-in failed (error {errno})")), out),
        }
        self.finish(&job);
    }

    /// Takes the token that was just made. It reports false if that was the last.
    fn token(&mut self, job: &mut Job, out: &mut Vec<u8>) -> bool {
        job.usage.completion += 1;
        let piece = match self.context.piece() {
            Ok(piece) => piece,
            Err(errno) => {
                job.fail(&Error::engine(format!("the WASI-NN plug-in gave no text (error {errno})")), out);
                return false;
            }
        };
        let shown = job.text.push(piece);
        if job.logprobs
            && let Ok(details) = self.context.piece_details()
            && let Ok(log) = serde_json::from_slice(details)
        {
            job.logs.push(log);
        }
        job.show(&shown, out);
        if job.text.stopped {
            job.end("stop", out);
        } else if job.most == Some(job.usage.completion) {
            job.end("length", out);
        } else {
            return true;
        }
        false
    }

    /// Why the model ended by itself.
    fn reason(&mut self) -> &'static str {
        match self.known()["finish_reason"].as_str() {
            Some("length" | "context") => "length",
            _ => "stop",
        }
    }

    /// Gives the request up: its client has left.
    pub fn cancel(&mut self, out: &mut Vec<u8>) {
        if let Some(job) = self.job.take() {
            put(out, END, job.stream, b"");
            self.finish(&job);
        }
    }

    fn finish(&mut self, job: &Job) {
        self.context.finish();
        self.seen.push_str(&job.answer);
    }
}

fn too_long(chat: bool, prompt: u64, window: u64) -> Error {
    Error {
        code: Some("context_length_exceeded"),
        ..Error::bad(
            if chat { "messages" } else { "prompt" },
            format!("This model's maximum context length is {window} tokens, but the prompt has {prompt}: shorten it, or raise ctx_size."),
        )
    }
}

impl Job {
    fn send(&self, out: &mut Vec<u8>, data: &str) {
        if !data.is_empty() {
            put(out, DATA, self.stream, data.as_bytes());
        }
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if self.streams && !self.begun {
            self.begun = true;
            put(out, HEAD, self.stream, b"200 text/event-stream");
            self.send(out, &self.wire.begin());
        }
    }

    /// Sends text, or keeps it for a client that wants all at once.
    fn show(&mut self, text: &str, out: &mut Vec<u8>) {
        self.begin(out);
        self.answer.push_str(text);
        let text = match &mut self.tools {
            Some(reader) => reader.push(text),
            None => text.to_string(),
        };
        self.put_text(&text, out);
    }

    fn put_text(&mut self, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if self.streams {
            let logs = std::mem::take(&mut self.logs);
            self.send(out, &self.wire.text(text, &logs));
        } else {
            self.whole.push_str(text);
        }
    }

    fn end(&mut self, mut finish: &'static str, out: &mut Vec<u8>) {
        let rest = self.text.finish();
        self.show(&rest, out);
        let calls = match self.tools.take().map(tools::Reader::finish) {
            None => vec![],
            Some(Ok(calls)) => {
                finish = "tool_calls";
                calls
            }
            Some(Err(text)) => {
                self.put_text(&text, out);
                vec![]
            }
        };
        if self.streams {
            let events: String = calls.iter().enumerate().map(|(i, c)| self.wire.call(i, c)).collect();
            self.send(out, &events);
            self.send(out, &self.wire.end(finish, self.usage));
        } else {
            put(out, HEAD, self.stream, b"200 application/json");
            self.send(out, &self.wire.whole(&self.whole, &calls, &self.logs, finish, self.usage));
        }
        put(out, END, self.stream, b"");
    }

    fn fail(&self, error: &Error, out: &mut Vec<u8>) {
        if self.begun {
            self.send(out, &event(&error.body()));
            put(out, END, self.stream, b"");
        } else {
            refuse(out, self.stream, error);
        }
    }
}

/// Answers a request with an error.
pub fn refuse(out: &mut Vec<u8>, stream: u32, error: &Error) {
    put(out, HEAD, stream, format!("{} application/json", error.status).as_bytes());
    put(out, DATA, stream, error.body().as_bytes());
    put(out, END, stream, b"");
}
