//! The error object of OpenAI's API.

use serde_json::{Value, json};

/// What a request is refused with, or what broke off.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    pub status: u16,
    pub message: String,
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

impl Error {
    /// A request that is wrong, or asks for what cannot be given.
    pub fn bad(param: &str, message: impl Into<String>) -> Self {
        Error { status: 400, message: message.into(), param: Some(param.into()), code: None }
    }

    /// A value of a parameter that is known and yet not served.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Error { code: Some("unsupported_value"), ..Self::bad(param, message) }
    }

    /// The engine's own failure.
    pub fn engine(message: impl Into<String>) -> Self {
        Error { status: 502, message: message.into(), param: None, code: Some("engine_failed") }
    }

    /// `{"error": {…}}`, with all four keys.
    pub fn body(&self) -> String {
        let kind = if self.status < 500 { "invalid_request_error" } else { "server_error" };
        let object: Value = json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}});
        object.to_string()
    }
}
