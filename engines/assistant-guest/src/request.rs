//! What a request asks for, read from the JSON of OpenAI's API. What cannot be given is refused by the name of its parameter,
//! unless the request says `"drop_params": true`.

use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::schema;
use crate::template::Template;
use crate::tools::Form;

/// What is generated, and how the answer is given.
pub struct Request {
    pub model: String,
    pub prompt: String,
    pub chat: bool, // else a text completion
    pub stream: bool,
    pub usage: bool,       // token counts in a stream
    pub most: Option<u64>, // tokens of the answer
    pub stops: Vec<String>,
    pub tools: Option<Form>,
    pub logprobs: Option<u64>,       // how many other tokens to tell beside each
    pub options: Map<String, Value>, // of the plug-in, for this generation
}

/// What the model and the plug-in can do.
pub struct Able<'a> {
    pub template: Option<&'a Template>,
    pub extended: bool, // the plug-in is ours
}

struct Reader {
    body: Map<String, Value>,
    drop: bool,
    extended: bool,
}

impl Reader {
    fn new(body: &[u8], extended: bool) -> Result<Self, Error> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(body)) => Ok(Reader { drop: body.get("drop_params") == Some(&Value::Bool(true)), body, extended }),
            Ok(_) => Err(Error { param: None, ..Error::bad("", "the request is not a JSON object") }),
            Err(e) => Err(Error { param: None, ..Error::bad("", format!("the request is not valid JSON: {e}")) }),
        }
    }

    /// The value of a parameter; null is none.
    fn get(&self, name: &str) -> Option<&Value> {
        self.body.get(name).filter(|v| !v.is_null())
    }

    fn number(&self, name: &str, least: f64, most: f64) -> Result<Option<f64>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(v) => v
                .as_f64()
                .filter(|n| (least..=most).contains(n))
                .map(Some)
                .ok_or_else(|| Error::bad(name, format!("{name} must be a number from {least} to {most}"))),
        }
    }

    fn whole(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(v) => v
                .as_u64()
                .filter(|n| (least..=most).contains(n))
                .map(Some)
                .ok_or_else(|| Error::bad(name, format!("{name} must be a whole number from {least} to {most}"))),
        }
    }

    fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(false),
            Some(v) => v.as_bool().ok_or_else(|| Error::bad(name, format!("{name} must be true or false"))),
        }
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(v) => v.as_str().map(Some).ok_or_else(|| Error::bad(name, format!("{name} must be a string"))),
        }
    }

    /// Refuses a parameter that cannot be honoured, unless it may be dropped.
    fn refuse(&self, name: &str, why: impl Into<String>) -> Result<(), Error> {
        if self.drop { Ok(()) } else { Err(Error::unsupported(name, why)) }
    }

    /// Refuses what neither completions nor chats can have here.
    fn refuse_unserved(&self) -> Result<(), Error> {
        for name in ["n", "best_of"] {
            if self.whole(name, 1, 1 << 20)?.is_some_and(|n| n > 1) {
                self.refuse(name, format!("{name} must be 1: one answer is made for a request"))?;
            }
        }
        for name in ["logit_bias", "audio", "prediction", "web_search_options", "functions", "function_call", "suffix"] {
            let empty = match self.get(name) {
                None => true,
                Some(Value::Object(o)) => o.is_empty(),
                Some(Value::Array(a)) => a.is_empty(),
                Some(Value::String(s)) => s.is_empty(),
                Some(_) => false,
            };
            if !empty {
                self.refuse(name, format!("{name} is not supported by this engine"))?;
            }
        }
        if let Some(Value::Array(modalities)) = self.get("modalities")
            && modalities.iter().any(|m| m != "text")
        {
            self.refuse("modalities", "only text can be answered")?;
        }
        if self.flag("echo")? {
            self.refuse("echo", "echo is not supported by this engine")?;
        }
        Ok(())
    }

    fn stops(&self) -> Result<Vec<String>, Error> {
        let wrong = || Error::bad("stop", "stop must be a string, or an array of up to 4 strings that are not empty");
        let stops = match self.get("stop") {
            None => vec![],
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(list)) => list.iter().map(|v| v.as_str().map(str::to_string).ok_or_else(wrong)).collect::<Result<_, _>>()?,
            Some(_) => return Err(wrong()),
        };
        if stops.len() > 4 || stops.iter().any(String::is_empty) { Err(wrong()) } else { Ok(stops) }
    }

    /// How tokens are chosen. The defaults are llama-server's, so that a model sounds the same on either engine.
    fn options(&self) -> Result<Map<String, Value>, Error> {
        let mut options = Map::new();
        let mut set = |key: &str, value: Value| options.insert(key.into(), value);
        set("temp", json!(self.number("temperature", 0.0, 2.0)?.unwrap_or(0.8)));
        set("top-p", json!(self.number("top_p", 0.0, 1.0)?.unwrap_or(0.95)));
        set("top-k", json!(self.whole("top_k", 0, 1 << 30)?.unwrap_or(40)));
        set("min-p", json!(self.number("min_p", 0.0, 1.0)?.unwrap_or(0.05)));
        set("presence-penalty", json!(self.number("presence_penalty", -2.0, 2.0)?.unwrap_or(0.0)));
        set("frequency-penalty", json!(self.number("frequency_penalty", -2.0, 2.0)?.unwrap_or(0.0)));
        set("repeat-penalty", json!(self.number("repeat_penalty", 0.01, 10.0)?.unwrap_or(1.0)));
        let seed = match self.get("seed") {
            None => u32::MAX, // a new one each time
            Some(v) => v.as_i64().map(|n| (n as u32) % u32::MAX).ok_or_else(|| Error::bad("seed", "seed must be a whole number"))?,
        };
        set("seed", json!(seed));
        Ok(options)
    }

    fn most(&self) -> Result<Option<u64>, Error> {
        const LIMIT: u64 = i32::MAX as u64;
        Ok(match self.whole("max_completion_tokens", 1, LIMIT)? {
            None => self.whole("max_tokens", 1, LIMIT)?,
            given => given,
        })
    }

    fn streams(&self) -> Result<(bool, bool), Error> {
        let stream = self.flag("stream")?;
        let usage = match self.get("stream_options") {
            None => false,
            Some(Value::Object(o)) if stream => o.get("include_usage") == Some(&Value::Bool(true)),
            Some(Value::Object(_)) => return Err(Error::bad("stream_options", "stream_options is for requests with stream: true")),
            Some(_) => return Err(Error::bad("stream_options", "stream_options must be an object")),
        };
        Ok((stream, usage))
    }

    /// The grammar that response_format asks for, "" if none.
    fn format(&self) -> Result<String, Error> {
        const NAME: &str = "response_format";
        let Some(format) = self.get(NAME) else { return Ok(String::new()) };
        let grammar = match format.get("type").and_then(Value::as_str) {
            Some("text") => return Ok(String::new()),
            Some("json_object") => schema::any_object(),
            Some("json_schema") => {
                let Some(wanted) = format.pointer("/json_schema/schema") else {
                    return Err(Error::bad(NAME, "response_format.json_schema.schema is missing"));
                };
                match schema::grammar(wanted) {
                    Ok(grammar) => grammar,
                    Err(why) => {
                        self.refuse(NAME, format!("this schema cannot be kept to here: {why}"))?;
                        schema::any_object()
                    }
                }
            }
            _ => return Err(Error::bad(NAME, "response_format.type must be text, json_object or json_schema")),
        };
        if !self.extended {
            self.refuse(NAME, "the WASI-NN plug-in takes no grammar for a single request: install ours for this")?;
            return Ok(String::new());
        }
        Ok(grammar)
    }

    fn logprobs(&self, chat: bool) -> Result<Option<u64>, Error> {
        let wanted = if chat {
            let top = self.whole("top_logprobs", 0, 20)?;
            match (self.flag("logprobs")?, top) {
                (true, top) => Some(top.unwrap_or(0)),
                (false, Some(1..)) => return Err(Error::bad("top_logprobs", "top_logprobs is for requests with logprobs: true")),
                (false, _) => None,
            }
        } else {
            self.whole("logprobs", 0, 20)?
        };
        if wanted.is_some() && !self.extended {
            self.refuse("logprobs", "the WASI-NN plug-in gives no log probabilities: install ours for them")?;
            return Ok(None);
        }
        Ok(wanted)
    }

    fn request(&self, chat: bool, prompt: String) -> Result<Request, Error> {
        self.refuse_unserved()?;
        let (stream, usage) = self.streams()?;
        let mut request = Request {
            model: self.text("model")?.unwrap_or("").to_string(),
            prompt,
            chat,
            stream,
            usage,
            most: self.most()?,
            stops: self.stops()?,
            tools: None,
            logprobs: self.logprobs(chat)?,
            options: self.options()?,
        };
        request.options.insert("n-predict".into(), json!(request.most.map_or(-1, |n| n as i64)));
        if self.extended {
            request.options.insert("grammar".into(), json!(self.format()?));
            request.options.insert("logprobs".into(), json!(request.logprobs.map_or(-1, |n| n as i64)));
        } else {
            self.format()?;
        }
        Ok(request)
    }
}

/// Reads a request for a text completion.
pub fn completion(body: &[u8], able: &Able) -> Result<Request, Error> {
    let reader = Reader::new(body, able.extended)?;
    let prompt = match reader.get("prompt") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(text)] => text.clone(),
            [Value::Number(_), ..] | [Value::Array(_), ..] => return Err(Error::unsupported("prompt", "prompts in tokens are not supported: send text")),
            _ => return Err(Error::unsupported("prompt", "one prompt is answered in a request: send them one by one")),
        },
        _ => return Err(Error::bad("prompt", "prompt must be a string")),
    };
    reader.request(false, prompt)
}

/// Reads a request for a chat completion.
pub fn chat(body: &[u8], able: &Able) -> Result<Request, Error> {
    let reader = Reader::new(body, able.extended)?;
    let messages = messages(&reader)?;
    let Some(template) = able.template else {
        return Err(Error::bad("messages", "this model has no chat template: ask /v1/completions, or set prompt_template in its file"));
    };
    let tools = tools(&reader, template)?;
    let prompt =
        template.render(&messages, &tools).map_err(|why| Error::bad("messages", format!("the model's chat template refuses these messages: {why}")))?;
    let mut request = reader.request(true, prompt)?;
    if !tools.is_empty() {
        let form = Form::of(&template.source);
        request.tools = Some(form);
        if let Some(grammar) = forced(&reader, &tools, form)? {
            request.options.insert("grammar".into(), json!(grammar));
        }
    }
    Ok(request)
}

const ROLES: &[&str] = &["system", "developer", "user", "assistant", "tool"];

/// The messages as templates expect them: contents are strings, arguments of calls objects, and nothing is null.
fn messages(reader: &Reader) -> Result<Vec<Value>, Error> {
    let Some(Value::Array(list)) = reader.get("messages") else {
        return Err(Error::bad("messages", "messages must be an array of messages"));
    };
    if list.is_empty() {
        return Err(Error::bad("messages", "messages must not be empty"));
    }
    list.iter().enumerate().map(|(i, m)| message(i, m)).collect()
}

fn message(i: usize, message: &Value) -> Result<Value, Error> {
    let at = |field: &str| format!("messages[{i}].{field}");
    let Value::Object(given) = message else { return Err(Error::bad(&format!("messages[{i}]"), "a message must be an object")) };
    let role = given.get("role").and_then(Value::as_str).filter(|r| ROLES.contains(r));
    let Some(role) = role else { return Err(Error::bad(&at("role"), format!("role must be one of {}", ROLES.join(", ")))) };
    let mut out = Map::new();
    out.insert("role".into(), json!(if role == "developer" { "system" } else { role }));
    let content = match given.get("content") {
        None | Some(Value::Null) if role == "assistant" => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts.iter().enumerate().map(|(k, p)| part(&at(&format!("content[{k}]")), p)).collect::<Result<Vec<_>, _>>()?.join("\n"),
        _ => return Err(Error::bad(&at("content"), "content must be a string, or an array of parts")),
    };
    out.insert("content".into(), json!(content));
    for (key, value) in given {
        match key.as_str() {
            "role" | "content" => {}
            "tool_calls" => {
                let Value::Array(calls) = value else { continue };
                out.insert(key.clone(), calls.iter().map(with_object).collect());
            }
            _ if value.is_null() => {}
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Ok(Value::Object(out))
}

fn part(at: &str, part: &Value) -> Result<String, Error> {
    match (part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
        (Some("text" | "input_text" | "output_text"), Some(text)) => Ok(text.into()),
        (Some("refusal"), _) => Ok(part.get("refusal").and_then(Value::as_str).unwrap_or("").into()),
        (Some(kind @ ("image_url" | "input_audio" | "file")), _) => {
            Err(Error::unsupported(at, format!("parts of type {kind} are not supported: this model reads text")))
        }
        _ => Err(Error::bad(at, "a part of content must have a type such as text, and a text")),
    }
}

/// A call whose arguments are an object, as templates expect them; the API has them as a string.
fn with_object(call: &Value) -> Value {
    let mut call = call.clone();
    if let Some(arguments) = call.pointer_mut("/function/arguments")
        && let Some(text) = arguments.as_str()
        && let Ok(object @ Value::Object(_)) = serde_json::from_str(text)
    {
        *arguments = object;
    }
    call
}

/// The tools the model may call: none for tool_choice "none".
fn tools(reader: &Reader, template: &Template) -> Result<Vec<Value>, Error> {
    let tools = match reader.get("tools") {
        None => return Ok(vec![]),
        Some(Value::Array(tools)) => tools,
        Some(_) => return Err(Error::bad("tools", "tools must be an array")),
    };
    for (i, tool) in tools.iter().enumerate() {
        if tool.get("type").and_then(Value::as_str) != Some("function") || tool.pointer("/function/name").and_then(Value::as_str).is_none() {
            return Err(Error::bad(&format!("tools[{i}]"), "a tool must have the type function, and a function with a name"));
        }
    }
    let none = reader.get("tool_choice").is_some_and(|c| c == "none");
    if tools.is_empty() || none {
        return Ok(vec![]);
    }
    if !template.knows_tools() {
        reader.refuse("tools", "the model's chat template knows no tools")?;
        return Ok(vec![]);
    }
    Ok(tools.clone())
}

/// The grammar that makes the model call a tool, if tool_choice says that it must.
fn forced(reader: &Reader, tools: &[Value], form: Form) -> Result<Option<String>, Error> {
    const NAME: &str = "tool_choice";
    let named = match reader.get(NAME) {
        None => return Ok(None),
        Some(Value::String(s)) if s == "auto" => return Ok(None),
        Some(Value::String(s)) if s == "required" => None,
        Some(choice @ Value::Object(_)) => match choice.pointer("/function/name").and_then(Value::as_str) {
            Some(name) => Some(name),
            None => return Err(Error::bad(NAME, "tool_choice must name a function")),
        },
        Some(_) => return Err(Error::bad(NAME, "tool_choice must be none, auto, required, or an object that names a function")),
    };
    let functions: Vec<(String, Value)> = tools
        .iter()
        .filter_map(|t| t.get("function"))
        .filter_map(|f| Some((f.get("name")?.as_str()?.to_string(), f.get("parameters").cloned().unwrap_or(json!({"type": "object"})))))
        .filter(|(name, _)| named.is_none_or(|wanted| wanted == name))
        .collect();
    if functions.is_empty() {
        return Err(Error::bad(NAME, format!("tool_choice names {}, which is not among tools", named.unwrap_or("nothing"))));
    }
    if !reader.extended {
        reader.refuse(NAME, "the WASI-NN plug-in takes no grammar, so no call can be forced: install ours for this")?;
        return Ok(None);
    }
    let (key, before, after) = form.shape();
    match schema::call_grammar(&functions, key, before, after) {
        Ok(grammar) => Ok(Some(grammar)),
        Err(why) => {
            reader.refuse(NAME, format!("a call cannot be forced, as the parameters' schema cannot be kept to here: {why}"))?;
            Ok(None)
        }
    }
}

/// What is to be embedded.
#[derive(Debug)]
pub struct Embeddings {
    pub model: String,
    pub inputs: Vec<String>,
    pub base64: bool,
    pub dimensions: Option<u64>,
}

/// Reads a request for embeddings.
pub fn embeddings(body: &[u8]) -> Result<Embeddings, Error> {
    let reader = Reader::new(body, true)?;
    let inputs: Vec<String> = match reader.get("input") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) if list.iter().any(|v| v.is_number() || v.is_array()) => {
            return Err(Error::unsupported("input", "inputs in tokens are not supported: send text (LangChain: check_embedding_ctx_length=False)"));
        }
        Some(Value::Array(list)) if !list.is_empty() && list.iter().all(Value::is_string) => {
            list.iter().filter_map(Value::as_str).map(str::to_string).collect()
        }
        _ => return Err(Error::bad("input", "input must be a string, or an array of strings")),
    };
    if let Some(i) = inputs.iter().position(String::is_empty) {
        return Err(Error::bad("input", format!("input {i} is empty: there is nothing to embed")));
    }
    let base64 = match reader.text("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Error::bad("encoding_format", "encoding_format must be float or base64")),
    };
    Ok(Embeddings { model: reader.text("model")?.unwrap_or("").to_string(), inputs, base64, dimensions: reader.whole("dimensions", 1, 1 << 20)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}";
    const WITH_TOOLS: &str = "{{ tools | tojson }}<tool_call>{% for m in messages %}{{ m.tool_calls | tojson if m.tool_calls else m.content }}{% endfor %}";

    fn ask(source: &str, extended: bool, body: Value) -> Result<Request, Error> {
        let template = Template::new(source, "", "").unwrap();
        chat(body.to_string().as_bytes(), &Able { template: Some(&template), extended })
    }

    fn with(more: Value) -> Value {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "Hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    #[test]
    fn a_plain_chat() {
        let r = ask(CHATML, true, with(json!({"max_tokens": 5, "max_completion_tokens": 7, "stop": "x", "temperature": 0, "seed": -1}))).unwrap();
        assert_eq!((r.prompt.as_str(), r.model.as_str(), r.most, r.stream, r.usage), ("<user>Hi", "m", Some(7), false, false));
        assert_eq!(r.stops, ["x"]);
        assert_eq!((&r.options["temp"], &r.options["n-predict"], &r.options["seed"]), (&json!(0.0), &json!(7), &json!(0)));
    }

    #[test]
    fn contents_in_parts_and_roles() {
        let body = json!({"messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "name": null}]});
        assert_eq!(ask(CHATML, true, body).unwrap().prompt, "<system>a\nb<assistant>");
    }

    #[test]
    fn refused_by_its_name() {
        for (more, param) in [
            (json!({"n": 2}), "n"),
            (json!({"logit_bias": {"1": 2}}), "logit_bias"),
            (json!({"temperature": 3}), "temperature"),
            (json!({"top_p": "1"}), "top_p"),
            (json!({"max_tokens": 0}), "max_tokens"),
            (json!({"stop": ["a", 1]}), "stop"),
            (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"),
            (json!({"stream": "yes"}), "stream"),
            (json!({"stream_options": {"include_usage": true}}), "stream_options"),
            (json!({"top_logprobs": 2}), "top_logprobs"),
            (json!({"messages": []}), "messages"),
            (json!({"messages": [{"role": "boss", "content": ""}]}), "messages[0].role"),
            (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
            (json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}), "messages[0].content[0]"),
            (json!({"response_format": {"type": "xml"}}), "response_format"),
            (json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string", "pattern": "a"}}}}), "response_format"),
            (json!({"tools": [{"type": "function", "function": {"name": "f"}}]}), "tools"),
            (json!({"modalities": ["text", "audio"]}), "modalities"),
        ] {
            let e = ask(CHATML, true, with(more.clone())).err().unwrap_or_else(|| panic!("{more} is not refused"));
            assert_eq!((e.param.as_deref(), e.status), (Some(param), 400), "{more}");
        }
        let e = ask(CHATML, true, json!([])).err().unwrap();
        assert_eq!((e.status, e.param), (400, None));
    }

    #[test]
    fn dropped_if_it_may_be() {
        let more = json!({"n": 2, "logit_bias": {"1": 2}, "tools": [{"type": "function", "function": {"name": "f"}}], "drop_params": true});
        assert!(ask(CHATML, true, with(more)).unwrap().tools.is_none());
    }

    #[test]
    fn a_lesser_plugin() {
        for (more, param) in [(json!({"logprobs": true}), "logprobs"), (json!({"response_format": {"type": "json_object"}}), "response_format")] {
            assert_eq!(ask(CHATML, false, with(more.clone())).err().unwrap().param.as_deref(), Some(param));
            assert!(ask(CHATML, true, with(more)).is_ok());
        }
        assert!(!ask(CHATML, false, with(json!({}))).unwrap().options.contains_key("grammar"));
    }

    #[test]
    fn tools_and_their_history() {
        let tool = json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
        let body =
            json!({"tools": [tool], "messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]}]});
        let r = ask(WITH_TOOLS, true, body).unwrap();
        assert_eq!(r.tools, Some(Form::Marked));
        assert!(r.prompt.contains("\"arguments\": {\"x\": 1}"), "{}", r.prompt);
        assert_eq!(r.options["grammar"], "");

        let forced = |choice: Value| ask(WITH_TOOLS, true, with(json!({"tools": [tool], "tool_choice": choice})));
        assert!(forced(json!("required")).unwrap().options["grammar"].as_str().unwrap().contains("<tool_call>"));
        assert!(forced(json!({"type": "function", "function": {"name": "f"}})).is_ok());
        assert_eq!(forced(json!({"type": "function", "function": {"name": "g"}})).err().unwrap().param.as_deref(), Some("tool_choice"));
        assert!(forced(json!("none")).unwrap().tools.is_none());
    }

    #[test]
    fn completions() {
        let able = Able { template: None, extended: true };
        let ask = |body: Value| completion(body.to_string().as_bytes(), &able);
        assert_eq!(ask(json!({"prompt": ["Hi"], "logprobs": 3})).unwrap().logprobs, Some(3));
        for (body, param) in [
            (json!({}), "prompt"),
            (json!({"prompt": [1, 2]}), "prompt"),
            (json!({"prompt": ["a", "b"]}), "prompt"),
            (json!({"prompt": "a", "echo": true}), "echo"),
        ] {
            assert_eq!(ask(body).err().unwrap().param.as_deref(), Some(param));
        }
        assert_eq!(chat(br#"{"messages":[{"role":"user","content":"x"}]}"#, &able).err().unwrap().param.as_deref(), Some("messages"));
    }

    #[test]
    fn embeddings_requests() {
        let ask = |body: Value| embeddings(body.to_string().as_bytes());
        assert_eq!(ask(json!({"input": ["a", "b"], "encoding_format": "base64"})).unwrap().inputs.len(), 2);
        for body in [json!({}), json!({"input": []}), json!({"input": ""}), json!({"input": [1, 2]}), json!({"input": [[1]]}), json!({"input": ["a", ""]})] {
            assert_eq!(ask(body.clone()).unwrap_err().param.as_deref(), Some("input"), "{body}");
        }
    }
}
