//! Reads JSON that others wrote, and says what is wrong with it: which field, and in words of JSON. The texts of serde speak of types
//! of this program, which nobody outside knows.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::{Map, Value};

use crate::failure::Failure;

/// Reads JSON. A field that nobody knows is refused at every depth: a condition or a delay that was misspelt would be none. A
/// fault in the whole is said of `whole`.
pub(crate) fn strict<T: DeserializeOwned>(json: &[u8], whole: &str) -> Result<T, Failure> {
    let text = json;
    let (mut json, mut track) = (serde_json::Deserializer::from_slice(text), serde_path_to_error::Track::new());
    let mut unknown = None;
    let read = serde_ignored::deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track), |path| {
        unknown.get_or_insert_with(|| path.to_string().replace("?.", ""));
    });
    let found = read.and_then(|found| json.end().map(|()| found)).map_err(|error: serde_json::Error| {
        let path = track.path().to_string();
        // A word that is none of those known is told as bad JSON where it is no word at all.
        let is_json = error.is_data() || serde_json::from_slice::<IgnoredAny>(text).is_ok();
        if is_json {
            fault(&error.to_string(), if path == "." { "" } else { &path }, whole)
        } else {
            Failure::bad(whole, format!("is no JSON: {error}"))
        }
    })?;
    match unknown {
        Some(field) => Err(Failure::bad(&field, format!("there is no field '{field}'"))),
        None => Ok(found),
    }
}

/// Takes one field out of an object whose other fields are read later. A null is as none.
pub(crate) fn take<T: DeserializeOwned>(object: &mut Map<String, Value>, field: &str) -> Result<Option<T>, Failure> {
    object
        .remove(field)
        .filter(|value| !value.is_null())
        .map_or(Ok(None), |value| strict(value.to_string().as_bytes(), field))
}

/// Refuses a body that says one field twice: which of the two is meant nobody knows, and readers differ in which they take. What
/// stands in a payload is its app's own. What is no JSON is left to [`strict`].
pub(crate) fn without_twins(json: &[u8]) -> Result<(), Failure> {
    let (mut json, mut at) = (serde_json::Deserializer::from_slice(json), String::new());
    match (Twins { at: &mut at }).deserialize(&mut json) {
        Err(error) if error.is_data() => {
            Err(Failure::bad(&at, format!("'{at}' is said more than once")).next("say it once"))
        }
        _ => Ok(()),
    }
}

/// Goes through a value, and ends with an error at the first field that its object has already. One text for the whole way: with
/// one for each depth a body of long names would take many times its size.
struct Twins<'a> {
    at: &'a mut String,
}

impl Twins<'_> {
    /// Where the walk is afterwards is told by an error alone.
    fn step(&mut self, into: fmt::Arguments<'_>) -> usize {
        let length = self.at.len();
        self.at.write_fmt(into).expect("a String takes what is written");
        length
    }
}

impl<'de> DeserializeSeed<'de> for Twins<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twins<'_> {
    type Value = ();

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        let mut fields = HashSet::new();
        while let Some(field) = object.next_key::<String>()? {
            let dot = if self.at.is_empty() { "" } else { "." };
            let length = self.step(format_args!("{dot}{field}"));
            if field == "payload" {
                object.next_value::<IgnoredAny>()?;
            } else {
                object.next_value_seed(Twins { at: &mut *self.at })?;
            }
            if !fields.insert(field) {
                return Err(A::Error::custom("said twice"));
            }
            self.at.truncate(length);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        for n in 0_usize.. {
            let length = self.step(format_args!("[{n}]"));
            let item = list.next_element_seed(Twins { at: &mut *self.at })?;
            self.at.truncate(length);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

fn fault(text: &str, path: &str, whole: &str) -> Failure {
    // What was read may be a piece that was written anew, so its lines lead nowhere.
    let text = text.rfind(" at line ").map_or(text, |at| &text[..at]);
    let of = |name: &str| match path {
        "" => name.to_owned(),
        path if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        path => format!("{path}.{name}"),
    };
    if let Some(name) = text.strip_prefix("missing field ") {
        return Failure::bad(&of(name.trim_matches('`')), "is missing");
    }
    if let Some((name, known)) = text.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", ")) {
        let field = of(name.trim_matches('`'));
        return Failure::bad(&field, format!("there is no field '{field}'"))
            .next(format!("there are {}", names(known)));
    }
    Failure::bad(if path.is_empty() { whole } else { path }, told(text))
}

/// A text of serde in words of JSON; one of our own types as it is.
fn told(text: &str) -> String {
    if let Some((name, known)) = text.strip_prefix("unknown variant ").and_then(|rest| rest.split_once(", ")) {
        return format!("'{}' must be one of {}", name.trim_matches('`'), names(known));
    }
    let wrong = ["invalid type: ", "invalid value: "].into_iter().find_map(|what| text.strip_prefix(what));
    match wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, wanted)) => format!("must be {}, not {}", wanted_as(wanted), found_as(found)),
        None if text.starts_with("data did not match any variant") => "has none of the forms that there are".into(),
        None if text == "expected value" => "must be one of the words known".into(),
        None => text.to_owned(),
    }
}

/// ``expected one of `a`, `b` `` as `a, b`.
fn names(known: &str) -> String {
    let names: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn wanted_as(wanted: &str) -> String {
    let up_to = |max: u64| format!("a whole number from 0 to {max}");
    match wanted {
        "u8" => up_to(u8::MAX.into()),
        "u16" => up_to(u16::MAX.into()),
        "u32" => up_to(u32::MAX.into()),
        "u64" | "usize" => up_to(u64::MAX),
        "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
        "f32" | "f64" => "a number".into(),
        "a boolean" => "true or false".into(),
        "a sequence" => "a list".into(),
        "a map" => "an object".into(),
        "string or map" => "one of the words known".into(),
        wanted if wanted.starts_with("struct ") => "an object".into(),
        wanted if wanted.contains("enum ") => "one of the words known".into(),
        wanted if wanted.starts_with("a tuple") || wanted.starts_with("tuple ") => "a list".into(),
        wanted => wanted.into(),
    }
}

fn found_as(found: &str) -> String {
    match found {
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        found => {
            let kinds = ["integer ", "floating point ", "boolean ", "string "];
            let value = kinds.into_iter().find_map(|kind| found.strip_prefix(kind)).unwrap_or(found);
            value.trim_matches('`').into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Outer {
        filter: Option<Inner>,
        #[serde(default)]
        dry_run: bool,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        older_ms: Option<u64>,
        state: Option<laneway::TaskState>,
        lane: Option<laneway::LaneName>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Closed {
        change: String,
        n: Option<i64>,
    }

    fn wrong<T: DeserializeOwned + fmt::Debug>(json: &str) -> (String, String) {
        let wrong = strict::<T>(json.as_bytes(), "body").unwrap_err();
        (wrong.field.unwrap(), wrong.message + &wrong.next.map_or_else(String::new, |next| format!("; {next}")))
    }

    #[test]
    fn a_field_that_nobody_knows_is_refused_at_every_depth() {
        // Proves that no misspelt condition widens what a batch changes, and where the fault is said to be.
        let read = strict::<Outer>(br#"{"filter": {"older_ms": 5, "state": "done", "lane": "low"}}"#, "body").unwrap();
        let filter = read.filter.unwrap();
        assert_eq!((filter.older_ms, filter.lane.unwrap().as_str(), read.dry_run), (Some(5), "low", false));
        assert_eq!(filter.state, Some(laneway::TaskState::Done));
        for (json, says) in [
            (r#"{"filter": {"older_then_ms": 5}}"#, "filter.older_then_ms"),
            (r#"{"filter": {"older_ms": "x"}}"#, "filter.older_ms"),
            (r#"{"fliter": {}}"#, "fliter"),
            ("{} {}", "body"),
            ("[", "body"),
        ] {
            assert_eq!(wrong::<Outer>(json).0, says, "{json}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_words_of_json() {
        // Proves every kind of fault: no name of a type of this program, no line of a text that nobody wrote.
        for (json, field, says) in [
            (
                r#"{"filter": {"older_ms": "x"}}"#,
                "filter.older_ms",
                "must be a whole number from 0 to 18446744073709551615, not \"x\"",
            ),
            (
                r#"{"filter": {"older_ms": -5}}"#,
                "filter.older_ms",
                "must be a whole number from 0 to 18446744073709551615, not -5",
            ),
            (
                r#"{"filter": {"older_ms": 1.5}}"#,
                "filter.older_ms",
                "must be a whole number from 0 to 18446744073709551615, not 1.5",
            ),
            (r#"{"filter": 5}"#, "filter", "must be an object, not 5"),
            (r#"{"filter": {"state": 5}}"#, "filter.state", "must be one of the words known"),
            (r#"{"dry_run": [1]}"#, "dry_run", "must be true or false, not a list"),
            (r#"{"dry_run": null}"#, "dry_run", "must be true or false, not null"),
            (r#"{"filter": {"lane": {}}}"#, "filter.lane", "must be a string that names a lane, not an object"),
            ("7", "body", "must be an object, not 7"),
            ("[", "body", "is no JSON: EOF while parsing a list at line 1 column 1"),
            ("nothing", "body", "is no JSON: expected ident at line 1 column 2"),
        ] {
            assert_eq!(wrong::<Outer>(json), (field.to_owned(), says.to_owned()), "{json}");
        }
        let state = wrong::<Outer>(r#"{"filter": {"state": "over"}}"#);
        assert!(state.1.starts_with("'over' must be one of ") && state.1.contains("queued, running"), "{state:?}");
        let of = |field: &str, says: &str| (field.to_owned(), says.to_owned());
        assert_eq!(wrong::<Closed>("{}"), of("change", "is missing"));
        assert_eq!(
            wrong::<Closed>(r#"{"chnage": "x"}"#),
            of("chnage", "there is no field 'chnage'; there are change, n")
        );
        assert_eq!(wrong::<Closed>(r#"{"change": "x", "n": "1"}"#), of("n", "must be a whole number, not \"1\""));
        let read = strict::<Closed>(br#"{"change": "x"}"#, "body").unwrap();
        assert_eq!((read.change.as_str(), read.n), ("x", None));
    }

    #[test]
    fn a_field_is_said_once() {
        // Proves it at every depth and for a name that is written in two ways, and that payloads and texts that are no JSON pass.
        for (json, at) in [
            (r#"{"kind": "a", "kind": "b"}"#, "kind"),
            (r#"{"kind": "a", "k\u0069nd": "a"}"#, "kind"),
            (r#"{"payload": 1, "payload": 1}"#, "payload"),
            (r#"{"filter": {"all": true, "lane": "low", "all": false}}"#, "filter.all"),
            (
                r#"{"tasks": [{"kind": "a"}, {"kind": "a", "after": [{"task": 1, "task": 2}]}]}"#,
                "tasks[1].after[0].task",
            ),
            (r#"{"": 1, "": 2}"#, ""),
        ] {
            let wrong = without_twins(json.as_bytes()).unwrap_err();
            assert_eq!((wrong.field.as_deref(), wrong.status.as_u16()), (Some(at), 400), "{json}");
            assert_eq!(wrong.message, format!("'{at}' is said more than once"));
        }
        for json in [
            r#"{"tasks": [{"kind": "a", "payload": {"a": [1.5, -1, null, {"b": 1, "b": 2}], "a": 2}}, {"kind": "a"}]}"#,
            r#"{"a": [true, null, 0.5, -1, 2, "text"], "b": {"a": 1}}"#,
            r#"{"a": 1, "a""#,
            "",
        ] {
            assert!(without_twins(json.as_bytes()).is_ok(), "{json}");
        }
    }

    #[test]
    fn one_field_is_taken_out_of_an_object() {
        // Proves its value, its absence and its fault, and that the others stay.
        let object = || serde_json::json!({ "wait_ms": 5, "kind": "mail" }).as_object().unwrap().clone();
        let mut rest = object();
        assert_eq!((take(&mut rest, "wait_ms").unwrap(), take::<u64>(&mut rest, "wait_ms").unwrap()), (Some(5), None));
        assert_eq!((rest.len(), take::<u64>(&mut object(), "kind").unwrap_err().field.as_deref()), (1, Some("kind")));
    }
}
