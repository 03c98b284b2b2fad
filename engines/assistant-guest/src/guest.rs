//! The guest: models, slots, and the requests that wait for one.

use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::choose::{Free, choose};
use crate::error::Error;
use crate::frames::{CANCEL, DATA, END, Frame, HEAD, REQUEST, put};
use crate::nn::{Context, Graph, PROMPT_TOO_LONG};
use crate::request::{self, Able, Request};
use crate::slot::{Slot, refuse};
use crate::template::Template;
use crate::{wasi, wire};

/// The first frame, see docs/wasm.md.
#[derive(Deserialize)]
struct Configuration {
    chat: Option<Model>,
    embedding: Option<Model>,
    #[serde(default)]
    threads: u64,
}

#[derive(Deserialize)]
#[serde(default)]
struct Model {
    graph: String,
    context: u64,
    batch: u64,
    parallel: u64,
    gpu_layers: Option<i64>,
    template: String,
    bos: String,
    eos: String,
}

impl Default for Model {
    fn default() -> Self {
        Model { graph: String::new(), context: 0, batch: 0, parallel: 1, gpu_layers: None, template: String::new(), bos: String::new(), eos: String::new() }
    }
}

impl Model {
    /// What the plug-in is told of the model.
    fn settings(&self, threads: u64) -> Map<String, Value> {
        let mut settings = Map::new();
        let mut set = |key: &str, value: Value| settings.insert(key.into(), value);
        set("ctx-size", json!(self.context));
        if self.batch > 0 {
            set("batch-size", json!(self.batch));
        }
        if threads > 0 {
            set("threads", json!(threads));
        }
        if let Some(layers) = self.gpu_layers {
            set("n-gpu-layers", json!(layers));
        }
        settings
    }

    fn load(&self, settings: &Map<String, Value>) -> Result<Graph, String> {
        Graph::load(&self.graph, &Value::from(settings.clone()).to_string())
            .map_err(|errno| format!("the model {} could not be loaded (WASI-NN error {errno}): is it a GGUF file that this plug-in knows?", self.graph))
    }
}

fn open(graph: Graph, model: &Model) -> Result<Context, String> {
    graph.context().map_err(|errno| format!("no context of {} tokens could be made (WASI-NN error {errno}): is there memory for it?", model.context))
}

/// How much of a prompt is computed before others get their turn, in tokens.
const PREFILL: u64 = 256;

pub struct Guest {
    template: Option<Template>,
    settings: Map<String, Value>, // of the chat model
    slots: Vec<Slot>,
    window: u64,    // tokens of a slot
    extended: bool, // the plug-in is ours
    embedding: Option<Context>,
    waiting: VecDeque<(u32, Request)>,
    turn: u64,
}

impl Guest {
    /// Loads the models. The error says why not, for a person.
    pub fn new(configuration: &[u8]) -> Result<Self, String> {
        let configuration: Configuration = serde_json::from_slice(configuration).map_err(|e| format!("the configuration cannot be read: {e}"))?;
        let mut guest =
            Guest { template: None, settings: Map::new(), slots: vec![], window: 0, extended: false, embedding: None, waiting: VecDeque::new(), turn: 0 };
        if let Some(model) = &configuration.chat {
            guest.load_chat(model, configuration.threads)?;
        }
        if let Some(model) = &configuration.embedding {
            let mut settings = model.settings(configuration.threads);
            settings.insert("embedding".into(), json!(true));
            guest.embedding = Some(open(model.load(&settings)?, model)?);
        }
        if guest.slots.is_empty() && guest.embedding.is_none() {
            return Err("the configuration names no model".into());
        }
        Ok(guest)
    }

    fn load_chat(&mut self, model: &Model, threads: u64) -> Result<(), String> {
        if !model.template.is_empty() {
            self.template = Some(
                Template::new(&model.template, &model.bos, &model.eos)
                    .map_err(|why| format!("the chat template cannot be read: {why}: set prompt_template"))?,
            );
        }
        self.settings = model.settings(threads);
        self.settings.insert("parallel".into(), json!(model.parallel));
        self.settings.insert("prefill".into(), json!(PREFILL));
        let graph = model.load(&self.settings)?;
        let mut first = Slot::new(open(graph, model)?);
        // What a plug-in tells of a prompt shows whether it is ours.
        first.set_prompt("a").map_err(|errno| format!("the model takes no prompt (WASI-NN error {errno})"))?;
        self.extended = first.known().get("finish_reason").is_some();
        self.window = model.context;
        self.slots.push(first);
        let more = if self.extended { model.parallel.max(1) - 1 } else { 0 }; // another plug-in has one prompt at a time
        for _ in 0..more {
            self.slots.push(Slot::new(open(graph, model)?));
        }
        Ok(())
    }

    /// What the router is told when the guest is ready.
    pub fn describe(&mut self) -> String {
        let commit = self.slots.first_mut().map(|s| s.known()["llama_commit"].clone()).unwrap_or_default();
        let plugin = if self.extended || self.slots.is_empty() { "assistant" } else { "other" };
        json!({"slots": self.slots.len().max(1), "context": self.window, "plugin": plugin, "llama_commit": commit}).to_string()
    }

    /// Is anything to be computed?
    pub fn busy(&self) -> bool {
        self.slots.iter().any(|s| s.stream().is_some())
    }

    pub fn take(&mut self, frame: Frame, out: &mut Vec<u8>) {
        match frame.kind {
            REQUEST => self.ask(frame.stream, &frame.payload, out),
            CANCEL => self.cancel(frame.stream, out),
            _ => {} // of a later router
        }
    }

    fn ask(&mut self, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
        let at = payload.iter().position(|&b| b == b'\n').unwrap_or(payload.len());
        let (path, body) = (&payload[..at], &payload[(at + 1).min(payload.len())..]);
        let able = Able { template: self.template.as_ref(), extended: self.extended };
        let answered = match path {
            b"/v1/chat/completions" if !self.slots.is_empty() => request::chat(body, &able).map(|r| self.waiting.push_back((stream, r))),
            b"/v1/completions" if !self.slots.is_empty() => request::completion(body, &able).map(|r| self.waiting.push_back((stream, r))),
            b"/v1/embeddings" if self.embedding.is_some() => self.embed(body).map(|answer| {
                put(out, HEAD, stream, b"200 application/json");
                put(out, DATA, stream, answer.as_bytes());
                put(out, END, stream, b"");
            }),
            _ => Err(Error {
                status: 404,
                message: format!("{} is not served by this model", String::from_utf8_lossy(path)),
                param: None,
                code: Some("unsupported_endpoint"),
            }),
        };
        if let Err(error) = answered {
            refuse(out, stream, &error);
        }
        self.fill(out);
    }

    fn cancel(&mut self, stream: u32, out: &mut Vec<u8>) {
        if let Some(at) = self.waiting.iter().position(|(s, _)| *s == stream) {
            self.waiting.remove(at);
            put(out, END, stream, b"");
        } else if let Some(slot) = self.slots.iter_mut().find(|s| s.stream() == Some(stream)) {
            slot.cancel(out);
            self.fill(out);
        }
    }

    /// Gives free slots to those who wait, in their order.
    fn fill(&mut self, out: &mut Vec<u8>) {
        while let Some((_, next)) = self.waiting.front() {
            let free: Vec<Free> = self.slots.iter().enumerate().filter_map(|(i, s)| s.free(i, &next.prompt)).collect();
            let Some(at) = choose(&free) else { return };
            let Some((stream, request)) = self.waiting.pop_front() else { return };
            self.turn += 1;
            let slot = &mut self.slots[at];
            slot.used = self.turn;
            if let Err(error) = slot.start(stream, request, &self.settings, self.window, wasi::random()) {
                refuse(out, stream, &error);
            }
        }
    }

    /// Makes one more token in every slot that is at work.
    pub fn step(&mut self, out: &mut Vec<u8>) {
        for slot in &mut self.slots {
            slot.step(out);
        }
        self.fill(out);
    }

    fn embed(&mut self, body: &[u8]) -> Result<String, Error> {
        let wanted = request::embeddings(body)?;
        let context = self.embedding.as_mut().ok_or_else(|| Error::engine("there is no model for embeddings"))?;
        let (mut vectors, mut tokens) = (Vec::new(), 0);
        for (i, input) in wanted.inputs.iter().enumerate() {
            let (vector, n) = embed(context, i, input)?;
            tokens += n;
            if wanted.dimensions.is_some_and(|d| d != vector.len() as u64) {
                return Err(Error::unsupported("dimensions", format!("this model's vectors have {} dimensions, which cannot be changed", vector.len())));
            }
            vectors.push(vector);
        }
        Ok(wire::embeddings(&wanted.model, &vectors, wanted.base64, tokens))
    }
}

fn embed(context: &mut Context, i: usize, input: &str) -> Result<(Vec<f32>, u64), Error> {
    #[derive(Deserialize)]
    struct Output {
        embedding: Vec<f32>,
    }
    let failed = |errno| match errno {
        PROMPT_TOO_LONG => {
            Error { code: Some("context_length_exceeded"), ..Error::bad("input", format!("input {i} is longer than the model's context: cut it into parts")) }
        }
        _ => Error::engine(format!("the WASI-NN plug-in failed (error {errno})")),
    };
    context.set_prompt(input).map_err(failed)?;
    let known: Value = context.known().ok().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
    context.compute().map_err(failed)?;
    let output: Output =
        serde_json::from_slice(context.output().map_err(failed)?).map_err(|e| Error::engine(format!("the WASI-NN plug-in gave no vector: {e}")))?;
    Ok((output.embedding, known["input_tokens"].as_u64().unwrap_or(0)))
}
