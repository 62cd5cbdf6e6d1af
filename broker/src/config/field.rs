//! How one value of a setting is read from TOML and written back. Knows types, not bounds.
//! `settings.rs` points at the fields, `layers.rs` writes and `print.rs` reads them.

use std::net::SocketAddr;
use std::path::PathBuf;

use laneway_protocol::{LaneName, Rate};
use laneway_web::TraceUrl;
use toml::Value;

use super::{Durability, LogFormat};

/// How a text from the environment or a flag becomes a TOML value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Number,
    Bool,
    Text,
    /// Comma-separated.
    List,
}

impl Form {
    /// A text that does not fit is passed on as text, so that [`Field::set`] refuses it in its own words.
    pub(super) fn value(self, text: &str) -> Value {
        match self {
            Form::Number => text.trim().parse().map_or_else(|_| Value::String(text.into()), Value::Integer),
            Form::Bool => text.trim().parse().map_or_else(|_| Value::String(text.into()), Value::Boolean),
            Form::Text => Value::String(text.into()),
            Form::List => {
                Value::Array(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
            }
        }
    }
}

/// Why a value was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// What it must be, following "must be".
    Type(&'static str),
    /// A whole number, but negative or beyond the field's width.
    Range,
    /// What is wrong with it.
    Reason(String),
}

/// A field of the settings, whatever its type.
pub(super) trait Field {
    fn set(&mut self, value: &Value) -> Result<(), Refusal>;
    /// `None` when it is not set.
    fn show(&self) -> Option<Value>;
    /// `None` when it is not set or not a number.
    fn number(&self) -> Option<u64>;
    fn form(&self) -> Form;
    /// Says what `other` says, which is the same field of other settings.
    fn copy(&mut self, other: &dyn Field) {
        match other.show() {
            Some(value) => self.set(&value).expect("what a field shows it can be set to"),
            None => self.unset(),
        }
    }
    fn unset(&mut self);
}

/// A type that a setting can have.
pub(super) trait Shape: Sized {
    const FORM: Form = Form::Text;
    fn read(value: &Value) -> Result<Self, Refusal>;
    fn show(&self) -> Value;
    fn number(&self) -> Option<u64> {
        None
    }
}

impl<S: Shape> Field for S {
    fn set(&mut self, value: &Value) -> Result<(), Refusal> {
        *self = S::read(value)?;
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        Some(Shape::show(self))
    }

    fn number(&self) -> Option<u64> {
        Shape::number(self)
    }

    fn form(&self) -> Form {
        S::FORM
    }

    /// It always says something.
    fn unset(&mut self) {}
}

impl<S: Shape> Field for Option<S> {
    fn set(&mut self, value: &Value) -> Result<(), Refusal> {
        *self = Some(S::read(value)?);
        Ok(())
    }

    fn show(&self) -> Option<Value> {
        self.as_ref().map(Shape::show)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(Shape::number)
    }

    fn form(&self) -> Form {
        S::FORM
    }

    fn unset(&mut self) {
        *self = None;
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Shape for $type {
            const FORM: Form = Form::Number;

            fn read(value: &Value) -> Result<Self, Refusal> {
                let number = value.as_integer().ok_or(Refusal::Type("a whole number"))?;
                number.try_into().map_err(|_| Refusal::Range)
            }

            fn show(&self) -> Value {
                Value::Integer((*self).try_into().unwrap_or(i64::MAX))
            }

            fn number(&self) -> Option<u64> {
                (*self).try_into().ok()
            }
        }
    )*};
}

whole_number!(u32, u64, usize);

impl Shape for bool {
    const FORM: Form = Form::Bool;

    fn read(value: &Value) -> Result<Self, Refusal> {
        value.as_bool().ok_or(Refusal::Type("true or false"))
    }

    fn show(&self) -> Value {
        Value::Boolean(*self)
    }
}

fn text(value: &Value) -> Result<&str, Refusal> {
    value.as_str().ok_or(Refusal::Type("a text in quotes"))
}

impl Shape for String {
    fn read(value: &Value) -> Result<Self, Refusal> {
        Ok(text(value)?.into())
    }

    fn show(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Shape for PathBuf {
    fn read(value: &Value) -> Result<Self, Refusal> {
        match text(value)? {
            "" => Err(Refusal::Type("a path")),
            path => Ok(path.into()),
        }
    }

    fn show(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl Shape for SocketAddr {
    fn read(value: &Value) -> Result<Self, Refusal> {
        let wanted = Refusal::Type("an address and a port, as in \"127.0.0.1:9730\"");
        text(value)?.parse().map_err(|_| wanted)
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Shape for LaneName {
    fn read(value: &Value) -> Result<Self, Refusal> {
        LaneName::new(text(value)?).map_err(|error| Refusal::Reason(error.to_string()))
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Shape for Rate {
    fn read(value: &Value) -> Result<Self, Refusal> {
        text(value)?.parse().map_err(|error: laneway_protocol::InvalidName| Refusal::Reason(error.to_string()))
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Shape for TraceUrl {
    fn read(value: &Value) -> Result<Self, Refusal> {
        text(value)?.parse().map_err(Refusal::Reason)
    }

    fn show(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl<S: Shape> Shape for Vec<S> {
    const FORM: Form = Form::List;

    fn read(value: &Value) -> Result<Self, Refusal> {
        let items = value.as_array().ok_or(Refusal::Type("a list of texts in brackets"))?;
        items.iter().map(S::read).collect()
    }

    fn show(&self) -> Value {
        Value::Array(self.iter().map(Shape::show).collect())
    }
}

/// One of a few words.
macro_rules! choice {
    ($type:ident, $words:literal, $($word:literal => $variant:ident),+) => {
        impl Shape for $type {
            fn read(value: &Value) -> Result<Self, Refusal> {
                match value.as_str() {
                    $(Some($word) => Ok($type::$variant),)+
                    _ => Err(Refusal::Type($words)),
                }
            }

            fn show(&self) -> Value {
                Value::from(match self {
                    $($type::$variant => $word,)+
                })
            }
        }
    };
}

choice!(Durability, r#""full" or "normal""#, "full" => Full, "normal" => Normal);
choice!(LogFormat, r#""auto", "human" or "json""#, "auto" => Auto, "human" => Human, "json" => Json);
