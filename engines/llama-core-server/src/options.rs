//! The options of llama-api-server that the router gives, by the same names and with the same defaults.

use chat_prompts::PromptTemplateType;

/// The template of a model for embeddings.
pub const EMBEDDING: &str = "embedding";

pub struct Options {
    pub names: Vec<String>,
    pub aliases: Vec<String>,
    pub templates: Vec<String>,
    pub context: Vec<u64>,
    pub batch: Vec<u64>,
    pub ubatch: Vec<u64>,
    pub threads: u64,
    pub predict: i32,
    pub temperature: f64,
    pub reverse_prompt: Option<String>,
    pub usage: bool,
    pub address: String,
}

impl Options {
    pub fn read(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut o = Options {
            names: list("default"),
            aliases: list("default,embedding"),
            templates: vec![],
            context: vec![4096, 384],
            batch: vec![512, 512],
            ubatch: vec![512, 512],
            threads: 2,
            predict: -1,
            temperature: 1.0,
            reverse_prompt: None,
            usage: false,
            address: "0.0.0.0:8080".into(),
        };
        while let Some(name) = args.next() {
            if name == "--include-usage" {
                o.usage = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} has no value"))?;
            match name.as_str() {
                "-m" | "--model-name" => o.names = list(&value),
                "-a" | "--model-alias" => o.aliases = list(&value),
                "-p" | "--prompt-template" => o.templates = list(&value),
                "-c" | "--ctx-size" => o.context = numbers(&name, &value)?,
                "-b" | "--batch-size" => o.batch = numbers(&name, &value)?,
                "-u" | "--ubatch-size" => o.ubatch = numbers(&name, &value)?,
                "--threads" => o.threads = number(&name, &value)?,
                "-n" | "--n-predict" => o.predict = number(&name, &value)?,
                "--temp" => o.temperature = number(&name, &value)?,
                "-r" | "--reverse-prompt" => o.reverse_prompt = Some(value),
                "-g" | "--n-gpu-layers" => {} // there is none here
                "--socket-addr" => o.address = value,
                _ => return Err(format!("unexpected argument '{name}' found")),
            }
        }
        o.check()
    }

    fn check(self) -> Result<Self, String> {
        let n = self.names.len();
        if self.templates.len() != n {
            return Err("The number of model names and prompt templates must be the same.".into());
        }
        for t in &self.templates {
            t.parse::<PromptTemplateType>().map_err(|_| format!("invalid value '{t}' for '--prompt-template'"))?;
        }
        if self.aliases.len() < n || self.context.len() < n || self.batch.len() < n || self.ubatch.len() < n {
            return Err("there must be an alias, a context and two batches for each model".into());
        }
        Ok(self)
    }
}

fn list(value: &str) -> Vec<String> {
    value.split(',').map(str::to_string).collect()
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("invalid value '{value}' for '{name}'"))
}

fn numbers(name: &str, value: &str) -> Result<Vec<u64>, String> {
    value.split(',').map(|v| number(name, v)).collect()
}
