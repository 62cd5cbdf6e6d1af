//! Why settings were refused: each text names the field, its value, its bound and where the value came from.
//! No retry helps; the exit code is that of a wrong configuration.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(PathBuf),
    /// The variable.
    Environment(String),
    /// As it was written, such as `--db`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File(path) => write!(f, "file {}", path.display()),
            Origin::Environment(variable) => write!(f, "environment {variable}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

#[derive(Debug)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not TOML; the text has line and column.
    Syntax {
        path: PathBuf,
        text: String,
    },
    UnknownKey {
        origin: Origin,
        key: String,
        suggestion: Option<String>,
    },
    /// A value of the wrong type.
    WrongType {
        origin: Origin,
        name: String,
        value: String,
        wanted: &'static str,
    },
    /// A number outside its bounds.
    OutOfRange {
        origin: Origin,
        name: String,
        value: String,
        min: u64,
        max: u64,
    },
    /// Anything else: `reason` follows the value in the text.
    Invalid {
        origin: Origin,
        name: String,
        value: String,
        reason: String,
    },
    /// Two or more, each on a line of its own.
    Several(Vec<ConfigError>),
}

/// What is wrong with settings that stand alone, so that whoever mends them is told of all at once.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ConfigError>);

impl Faults {
    /// Gives what is right, and keeps what is not.
    pub(super) fn keep<T>(&mut self, checked: Result<T, ConfigError>) -> Option<T> {
        checked.map_err(|fault| self.0.push(fault)).ok()
    }

    pub(super) fn all(mut self) -> Result<(), ConfigError> {
        match (self.0.pop(), self.0.is_empty()) {
            (None, _) => Ok(()),
            (Some(only), true) => Err(only),
            (Some(last), false) => {
                self.0.push(last);
                Err(ConfigError::Several(self.0))
            }
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Read { path, .. } => write!(f, "cannot read the config file {}", path.display()),
            ConfigError::Syntax { path, text } => {
                write!(f, "the config file {} is not valid TOML: {}", path.display(), text.trim_end())
            }
            ConfigError::UnknownKey { origin, key, suggestion } => {
                write!(f, "unknown setting '{key}' ({origin})")?;
                match suggestion {
                    Some(near) => write!(f, ", did you mean '{near}'?"),
                    None => f.write_str(", `laneway broker --print-config` lists all"),
                }
            }
            ConfigError::WrongType { origin, name, value, wanted } => {
                write!(f, "{name} is {value} ({origin}), must be {wanted}")
            }
            ConfigError::OutOfRange { origin, name, value, min, max } => {
                write!(f, "{name} is {value} ({origin}), must be {min} to {max}")
            }
            ConfigError::Invalid { origin, name, value, reason } => write!(f, "{name} is {value} ({origin}): {reason}"),
            ConfigError::Several(faults) => {
                write!(f, "{} settings are wrong", faults.len())?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Read { source, .. } => Some(source),
            _ => None,
        }
    }
}
