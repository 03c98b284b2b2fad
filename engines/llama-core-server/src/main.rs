//! A stand-in for LlamaEdge's llama-api-server.wasm, which is in no package registry: the published crates it is made of,
//! behind as little HTTP as will do. What llama-core does stays as it is; that is what tests want of it. The shell does what
//! the original's does: it answers one request after the other, errors are plain text, and the model's name is not checked.

mod http;
mod options;

use either::{Left, Right};
use endpoints::chat::ChatCompletionRequest;
use endpoints::completions::CompletionRequest;
use endpoints::embeddings::EmbeddingRequest;
use futures::executor::block_on;
use futures::TryStreamExt;
use llama_core::metadata::ggml::{GgmlMetadata, GgmlMetadataBuilder};

use http::{Answer, Request};
use options::{Options, EMBEDDING};

fn main() {
    if let Err(why) = run() {
        eprintln!("llama-core-server: {why}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let options = Options::read(std::env::args().skip(1))?;
    load(&options)?;
    // Only now: who can connect finds the models loaded.
    http::serve(&options.address, answer)
}

fn load(options: &Options) -> Result<(), String> {
    let (embedding, chat): (Vec<_>, Vec<_>) = (0..options.names.len()).map(|i| metadata(options, i)).partition(|(template, _)| template == EMBEDDING);
    let of = |list: Vec<(String, GgmlMetadata)>| list.into_iter().map(|(_, m)| m).collect::<Vec<_>>();
    if !chat.is_empty() {
        llama_core::init_ggml_chat_context(&of(chat)).map_err(|e| e.to_string())?;
    }
    if !embedding.is_empty() {
        llama_core::init_ggml_embeddings_context(&of(embedding)).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// The i-th model, and the name of its template.
fn metadata(options: &Options, i: usize) -> (String, GgmlMetadata) {
    let template = options.templates[i].clone();
    let kind = template.parse().expect("checked by the options");
    let m = GgmlMetadataBuilder::new(options.names[i].clone(), options.aliases[i].clone(), kind)
        .with_ctx_size(options.context[i])
        .with_batch_size(options.batch[i])
        .with_ubatch_size(options.ubatch[i])
        .with_threads(options.threads)
        .with_n_predict(options.predict)
        .with_temperature(options.temperature)
        .with_reverse_prompt(options.reverse_prompt.clone())
        .include_usage(options.usage)
        .enable_embeddings(template == EMBEDDING)
        .build();
    (template, m)
}

fn answer(request: &Request, answer: &mut Answer) -> std::io::Result<()> {
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/v1/chat/completions") => chat(request, answer),
        ("POST", "/v1/completions") => plain(answer, request, |r: CompletionRequest| block_on(llama_core::completions::completions(&r))),
        ("POST", "/v1/embeddings") => plain(answer, request, |r: EmbeddingRequest| block_on(llama_core::embeddings::embeddings(&r))),
        ("GET", "/v1/models") => match block_on(llama_core::models::models()) {
            Ok(models) => answer.json(&models),
            Err(e) => answer.error(500, &e.to_string()),
        },
        (_, "/echo") => answer.text(200, "echo test"),
        _ => answer.error(404, "The requested service endpoint is not found"),
    }
}

/// Answers what comes as a whole.
fn plain<Q, A, E>(answer: &mut Answer, request: &Request, ask: impl FnOnce(Q) -> Result<A, E>) -> std::io::Result<()>
where
    Q: serde::de::DeserializeOwned,
    A: serde::Serialize,
    E: std::fmt::Display,
{
    match serde_json::from_slice(&request.body) {
        Err(e) => answer.error(400, &format!("Fail to deserialize the request: {e}")),
        Ok(q) => match ask(q) {
            Ok(a) => answer.json(&a),
            Err(e) => answer.error(500, &e.to_string()),
        },
    }
}

fn chat(request: &Request, answer: &mut Answer) -> std::io::Result<()> {
    let mut chat: ChatCompletionRequest = match serde_json::from_slice(&request.body) {
        Ok(chat) => chat,
        Err(e) => return answer.error(400, &format!("Fail to deserialize chat completion request: {e}")),
    };
    match block_on(llama_core::chat::chat_completions::chat(&mut chat)) {
        Err(e) => answer.error(500, &e.to_string()),
        Ok((Right(whole), _)) => answer.json(&whole),
        Ok((Left(events), _)) => {
            let mut events = std::pin::pin!(events.into_stream());
            answer.begin_stream()?;
            loop {
                match block_on(events.try_next()) {
                    Ok(Some(event)) => answer.chunk(event.as_bytes())?, // an error: the client has left, and the stream ends with us
                    Ok(None) => break,
                    Err(e) => {
                        eprintln!("llama-core-server: {e}");
                        break;
                    }
                }
            }
            answer.end_stream()
        }
    }
}
