//! JSON schemas as GBNF grammars (llama.cpp, grammars/README.md), so that a model cannot but keep to them.

use serde_json::{Map, Value};

/// The rules every grammar here may use. White space is bounded: a model could write it without end.
const COMMON: &str = r##"space ::= "" | " " | "\n" [ \t]{0,16}
char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,4})?
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
object ::= "{" space (string ":" space value space ("," space string ":" space value space)*)? "}"
array ::= "[" space (value space ("," space value space)*)? "]"
"##;

/// What says nothing about which values are valid.
const NOTES: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "format",
    "strict",
    "$defs",
    "definitions",
];

/// The grammar of any JSON object.
pub fn any_object() -> String {
    format!("root ::= space object\n{COMMON}")
}

/// The grammar of what is valid by the schema. An error names what of it cannot be translated.
pub fn grammar(schema: &Value) -> Result<String, String> {
    let mut rules = Rules { root: schema, rules: Vec::new() };
    let root = rules.expression(schema, 0)?;
    Ok(rules.text(&format!("space {root}")))
}

/// The grammar of a call of one of some functions, given as alternatives of (name, schema of the arguments): `before`, an
/// object with the name and under `key` the arguments, `after`.
pub fn call_grammar(functions: &[(String, Value)], key: &str, before: &str, after: &str) -> Result<String, String> {
    let nothing = Value::Null;
    let mut rules = Rules { root: &nothing, rules: Vec::new() };
    let mut calls = Vec::new();
    for (name, arguments) in functions {
        let mut of_this = Rules { root: arguments, rules: std::mem::take(&mut rules.rules) };
        let arguments = of_this.expression(arguments, 0)?;
        rules.rules = of_this.rules;
        let head = format!("{{\"name\": {}, {}: ", Value::from(name.as_str()), Value::from(key));
        calls.push(format!("{} {arguments} \"}}\"", literal(&head)));
    }
    Ok(rules.text(&format!("{} ({}) {}", literal(before), calls.join(" | "), literal(after))))
}

/// A string of GBNF.
fn literal(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Nested deeper than any schema that is meant.
const DEEPEST: usize = 64;

struct Rules<'a> {
    root: &'a Value,                      // what references start from
    rules: Vec<(String, Option<String>)>, // reference or number → name is r and its place; None while it is being made
}

impl Rules<'_> {
    fn text(&self, root: &str) -> String {
        let mut out = format!("root ::= {root}\n{COMMON}");
        for (i, (_, rule)) in self.rules.iter().enumerate() {
            if let Some(rule) = rule {
                out.push_str(&format!("r{i} ::= {rule}\n"));
            }
        }
        out
    }

    fn expression(&mut self, schema: &Value, depth: usize) -> Result<String, String> {
        if depth > DEEPEST {
            return Err(format!("it is nested more than {DEEPEST} deep"));
        }
        let object = match schema {
            Value::Bool(true) => return Ok("value".into()),
            Value::Object(o) => o,
            _ => return Err(format!("{schema} is no schema")),
        };
        if let Some(reference) = object.get("$ref") {
            return self.reference(reference, depth);
        }
        for one_of in ["anyOf", "oneOf"] {
            if let Some(choices) = object.get(one_of) {
                known(object, &[one_of, "type"])?;
                return self.choices(one_of, choices, depth);
            }
        }
        if let Some(all) = object.get("allOf") {
            known(object, &["allOf"])?;
            return match all.as_array().map(Vec::as_slice) {
                Some([one]) => self.expression(one, depth + 1),
                _ => Err("allOf with more than one schema is not supported".into()),
            };
        }
        if let Some(values) = object.get("enum") {
            known(object, &["enum", "type"])?;
            let values = values.as_array().filter(|v| !v.is_empty()).ok_or("enum is no list of values")?;
            let words: Vec<String> = values.iter().map(|v| literal(&v.to_string())).collect();
            return Ok(format!("({})", words.join(" | ")));
        }
        if let Some(value) = object.get("const") {
            known(object, &["const", "type"])?;
            return Ok(literal(&value.to_string()));
        }
        match object.get("type") {
            Some(Value::String(name)) => self.of_type(name, object, depth),
            Some(Value::Array(names)) => {
                let mut choices = Vec::new();
                for name in names {
                    let name = name.as_str().ok_or("type is no name")?;
                    choices.push(self.of_type(name, &without_others(object, name), depth)?);
                }
                Ok(format!("({})", choices.join(" | ")))
            }
            None if object.contains_key("properties") => self.object(object, depth),
            None if object.contains_key("items") => self.array(object, depth),
            None => known(object, &[]).map(|()| "value".into()),
            Some(other) => Err(format!("type {other} is not supported")),
        }
    }

    fn choices(&mut self, name: &str, choices: &Value, depth: usize) -> Result<String, String> {
        let choices = choices.as_array().filter(|c| !c.is_empty()).ok_or_else(|| format!("{name} is no list of schemas"))?;
        let choices: Result<Vec<String>, String> = choices.iter().map(|c| self.expression(c, depth + 1)).collect();
        Ok(format!("({})", choices?.join(" | ")))
    }

    /// A rule of its own, as it may refer to itself.
    fn reference(&mut self, reference: &Value, depth: usize) -> Result<String, String> {
        let path = reference.as_str().ok_or("$ref is no string")?;
        let place = if path == "#" { Some(self.root) } else { path.strip_prefix('#').and_then(|p| self.root.pointer(p)) };
        let Some(schema) = place else { return Err(format!("$ref {path} is not in the schema")) };
        let key = format!("{:p} {path}", self.root);
        if let Some(at) = self.rules.iter().position(|(k, _)| *k == key) {
            return Ok(format!("r{at}"));
        }
        let at = self.rules.len();
        self.rules.push((key, None));
        let rule = self.expression(&schema.clone(), depth + 1)?;
        self.rules[at].1 = Some(rule);
        Ok(format!("r{at}"))
    }

    fn of_type(&mut self, name: &str, schema: &Map<String, Value>, depth: usize) -> Result<String, String> {
        match name {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "string" => string(schema),
            "integer" | "number" | "boolean" | "null" => {
                known(schema, &["type"])?;
                Ok(name.into())
            }
            other => Err(format!("type {other} is not supported")),
        }
    }

    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Result<String, String> {
        known(schema, &["type", "properties", "required", "additionalProperties"])?;
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let required: Vec<&str> = schema.get("required").and_then(Value::as_array).map(|r| r.iter().filter_map(Value::as_str).collect()).unwrap_or_default();
        if properties.is_empty() {
            return match schema.get("additionalProperties") {
                Some(Value::Bool(false)) => Ok("\"{\" space \"}\"".into()),
                Some(values @ Value::Object(_)) => {
                    let value = self.expression(values, depth + 1)?;
                    let pair = format!("string \":\" space {value} space");
                    Ok(format!("\"{{\" space ({pair} (\",\" space {pair})*)? \"}}\""))
                }
                _ => Ok("object".into()),
            };
        }
        let (mut must, mut may) = (Vec::new(), Vec::new());
        for (name, property) in properties {
            let value = self.expression(property, depth + 1)?;
            let pair = format!("{} space {value} space", literal(&format!("{}:", Value::from(name.as_str()))));
            if required.contains(&name.as_str()) { must.push(pair) } else { may.push(pair) }
        }
        Ok(format!("\"{{\" space {} \"}}\"", pairs(&must, &may)))
    }

    fn array(&mut self, schema: &Map<String, Value>, depth: usize) -> Result<String, String> {
        known(schema, &["type", "items", "minItems", "maxItems"])?;
        let item = match schema.get("items") {
            Some(items) => self.expression(items, depth + 1)?,
            None => "value".into(),
        };
        let least = count(schema, "minItems")?.unwrap_or(0);
        let most = count(schema, "maxItems")?;
        if most == Some(0) {
            return Ok("\"[\" space \"]\"".into());
        }
        let more = match most {
            Some(most) => format!("{{{},{}}}", least.saturating_sub(1), most - 1),
            None if least > 1 => format!("{{{},}}", least - 1),
            None => "*".into(),
        };
        let items = format!("{item} space (\",\" space {item} space){more}");
        Ok(if least == 0 { format!("\"[\" space ({items})? \"]\"") } else { format!("\"[\" space {items} \"]\"") })
    }
}

/// Pairs of an object with commas between them: all that must be there, then any of those that may, in their order.
fn pairs(must: &[String], may: &[String]) -> String {
    const COMMA: &str = " \",\" space ";
    if !must.is_empty() {
        let optional: String = may.iter().map(|pair| format!(" (\",\" space {pair})?")).collect();
        return must.join(COMMA) + &optional;
    }
    let firsts: Vec<String> =
        (0..may.len()).map(|i| may[i].clone() + &may[i + 1..].iter().map(|pair| format!(" (\",\" space {pair})?")).collect::<String>()).collect();
    format!("({})?", firsts.join(" | "))
}

fn string(schema: &Map<String, Value>) -> Result<String, String> {
    known(schema, &["type", "minLength", "maxLength"])?;
    Ok(match (count(schema, "minLength")?, count(schema, "maxLength")?) {
        (None, None) => "string".into(),
        (least, None) => format!("\"\\\"\" char{{{},}} \"\\\"\"", least.unwrap_or(0)),
        (least, Some(most)) => format!("\"\\\"\" char{{{},{most}}} \"\\\"\"", least.unwrap_or(0)),
    })
}

/// The most repetitions llama.cpp's grammars take.
const MOST: u64 = 1000;

fn count(schema: &Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match schema.get(key) {
        None => Ok(None),
        Some(n) => n.as_u64().filter(|&n| n <= MOST).map(Some).ok_or_else(|| format!("{key} must be a number from 0 to {MOST}")),
    }
}

/// What each type's values are bounded by.
const BOUNDS: [(&str, &[&str]); 3] =
    [("object", &["properties", "required", "additionalProperties"]), ("array", &["items", "minItems", "maxItems"]), ("string", &["minLength", "maxLength"])];

/// A schema for several types, less what is about others than this one.
fn without_others(schema: &Map<String, Value>, name: &str) -> Map<String, Value> {
    let of_others = |key: &str| BOUNDS.iter().any(|(kind, keys)| *kind != name && keys.contains(&key));
    schema.iter().filter(|(key, _)| !of_others(key)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// Refuses what would have to be kept to and is not translated.
fn known(schema: &Map<String, Value>, keys: &[&str]) -> Result<(), String> {
    match schema.keys().find(|k| !keys.contains(&k.as_str()) && !NOTES.contains(&k.as_str())) {
        Some(key) => Err(format!("{key} is not supported")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn root(schema: Value) -> String {
        grammar(&schema).unwrap().lines().next().unwrap().to_string()
    }

    #[test]
    fn objects() {
        assert_eq!(
            root(
                json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"], "additionalProperties": false})
            ),
            r#"root ::= space "{" space "\"a\":" space string space ("," space "\"b\":" space integer space)? "}""#
        );
        assert_eq!(
            root(json!({"properties": {"a": {"const": 1}, "b": {"enum": ["x", null]}}})),
            r#"root ::= space "{" space ("\"a\":" space "1" space ("," space "\"b\":" space ("\"x\"" | "null") space)? | "\"b\":" space ("\"x\"" | "null") space)? "}""#
        );
        assert_eq!(root(json!({"type": "object"})), "root ::= space object");
    }

    #[test]
    fn arrays_and_strings() {
        assert_eq!(root(json!({"type": "array", "items": {"type": "number"}})), r#"root ::= space "[" space (number space ("," space number space)*)? "]""#);
        assert_eq!(root(json!({"type": "array", "minItems": 2, "maxItems": 3})), r#"root ::= space "[" space value space ("," space value space){1,2} "]""#);
        assert_eq!(root(json!({"type": ["string", "null"], "maxLength": 5})), r#"root ::= space ("\"" char{0,5} "\"" | null)"#);
    }

    #[test]
    fn references_may_be_to_themselves() {
        let g = grammar(&json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["next"]}}})).unwrap();
        assert!(g.starts_with("root ::= space r0\n"), "{g}");
        assert!(g.contains("r0 ::= \"{\" space \"\\\"next\\\":\" space (r0 | null) space \"}\"\n"), "{g}");
    }

    #[test]
    fn what_cannot_be_kept_to_is_refused() {
        for (schema, why) in [
            (json!({"type": "string", "pattern": "a+"}), "pattern"),
            (json!({"type": "integer", "minimum": 3}), "minimum"),
            (json!({"allOf": [{}, {}]}), "allOf"),
            (json!({"$ref": "#/nowhere"}), "#/nowhere"),
            (json!({"type": "tuple"}), "tuple"),
            (json!(7), "7 is no schema"),
        ] {
            assert!(grammar(&schema).unwrap_err().contains(why), "{schema}");
        }
    }

    #[test]
    fn calls() {
        let g = call_grammar(
            &[("f".into(), json!({"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}))],
            "arguments",
            "<tool_call>\n",
            "\n</tool_call>",
        )
        .unwrap();
        assert_eq!(
            g.lines().next().unwrap(),
            r#"root ::= "<tool_call>\n" ("{\"name\": \"f\", \"arguments\": " "{" space "\"x\":" space null space "}" "}") "\n</tool_call>""#
        );
    }
}
