//! Chat templates, as model files have them: Jinja the way Hugging Face's transformers renders it
//! (utils/chat_template_utils.py: trim_blocks, lstrip_blocks, Python's methods, tojson without escapes for HTML).

use minijinja::value::{Kwargs, Value as Any};
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::Value;

/// A model's template, ready to be filled in.
pub struct Template {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    pub source: String,
}

const NAME: &str = "chat";

impl Template {
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, String> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<(), Error> { Err(Error::new(ErrorKind::InvalidOperation, message)) });
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, source.to_string()).map_err(|e| describe(&e))?;
        Ok(Template { environment, bos: bos.into(), eos: eos.into(), source: source.into() })
    }

    /// Does the template write tools into the prompt?
    pub fn knows_tools(&self) -> bool {
        self.source.contains("tools")
    }

    pub fn render(&self, messages: &[Value], tools: &[Value]) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|e| describe(&e))?;
        let tools = if tools.is_empty() { Any::from(()) } else { Any::from_serialize(tools) };
        template
            .render(context! {
                messages => Any::from_serialize(messages), tools => tools, add_generation_prompt => true,
                bos_token => self.bos, eos_token => self.eos,
            })
            .map_err(|e| describe(&e))
    }
}

fn describe(e: &Error) -> String {
    e.detail().map_or_else(|| e.to_string(), str::to_string)
}

/// JSON as Python's json.dumps writes it: ", " and ": " between, no escapes for HTML.
fn tojson(value: &Any, options: Kwargs) -> Result<Any, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.get::<Option<bool>>("ensure_ascii").ok();
    options.get::<Option<Any>>("separators").ok();
    options.get::<Option<bool>>("sort_keys").ok();
    options.assert_all_used()?;
    let json = serde_json::to_value(value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    Ok(Any::from_safe_string(match indent {
        Some(width) => pretty(&json, width),
        None => spaced(&json),
    }))
}

fn pretty(json: &Value, width: usize) -> String {
    let indent = " ".repeat(width);
    let mut out = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut out, serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes()));
    serde::Serialize::serialize(json, &mut writer).expect("JSON can be written");
    String::from_utf8_lossy(&out).into_owned()
}

fn spaced(json: &Value) -> String {
    match json {
        Value::Array(items) => format!("[{}]", items.iter().map(spaced).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) => {
            let fields: Vec<String> = fields.iter().map(|(k, v)| format!("{}: {}", Value::from(k.as_str()), spaced(v))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

/// The date, in the few forms that templates ask for.
fn strftime_now(format: &str) -> String {
    let days = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86400);
    let (year, month, day) = civil(days as i64);
    const MONTHS: [&str; 12] = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
    let name = MONTHS[(month - 1) as usize];
    format
        .replace("%Y", &year.to_string())
        .replace("%m", &format!("{month:02}"))
        .replace("%d", &format!("{day:02}"))
        .replace("%B", name)
        .replace("%b", &name[..3])
}

/// The date that many days after 1970-01-01 (H. Hinnant, chrono-compatible low-level date algorithms, civil_from_days).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719468;
    let era = z.div_euclid(146097);
    let doe = z.rem_euclid(146097);
    let yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str, messages: Value, tools: Value) -> Result<String, String> {
        Template::new(source, "<s>", "</s>")?.render(messages.as_array().unwrap(), tools.as_array().unwrap())
    }

    #[test]
    fn chatml_with_a_default_system_prompt() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe good<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        assert_eq!(
            render(source, json!([{"role": "user", "content": "Hi"}]), json!([])).unwrap(),
            "<|im_start|>system\nBe good<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn python_methods_and_tools() {
        let source = "{{ bos_token }}{%- for t in tools %}{{ t | tojson }}{%- endfor %}{{ messages[0].content.strip().split(' ')[-1].upper() }}";
        assert_eq!(
            render(source, json!([{"role": "user", "content": " a <b> "}]), json!([{"type": "function", "x": [1, "<é"]}])).unwrap(),
            "<s>{\"type\": \"function\", \"x\": [1, \"<é\"]}<B>"
        );
    }

    #[test]
    fn no_tools_is_none() {
        assert_eq!(render("{% if tools is none %}none{% endif %}{% if not tools %}!{% endif %}", json!([]), json!([])).unwrap(), "none!");
    }

    #[test]
    fn a_template_may_refuse() {
        assert_eq!(render("{{ raise_exception('roles must alternate') }}", json!([]), json!([])).unwrap_err(), "roles must alternate");
        assert!(render("{% if %}", json!([]), json!([])).is_err());
    }

    #[test]
    fn dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(20783), (2026, 11, 26));
        assert_eq!(civil(11016), (2000, 2, 29));
    }
}
