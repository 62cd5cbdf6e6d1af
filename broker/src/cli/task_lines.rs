//! Tasks as lines of JSON, one object each: the fields of PROTOCOL.md, and the payload as any value. Whoever reads them names the
//! line that is wrong, before anything is stored.

use laneway_protocol::limits::BATCH_MAX;
use laneway_protocol::message::NewTask;
use laneway_protocol::{Kind, Payload};
use serde_json::{Map, Value};

use crate::error::Error;

/// All tasks of a text, in order; blank lines are left out.
pub(super) fn read(text: &str) -> Result<Vec<NewTask>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let tasks = lines.map(|(n, line)| task(line).map_err(|why| Error::Usage(format!("line {}: {why}", n + 1))));
    tasks.collect()
}

/// One task that was typed: a kind, or the same object as in a line.
pub(super) fn typed(text: &str) -> Result<NewTask, String> {
    if text.trim_start().starts_with('{') {
        return task(text);
    }
    Ok(NewTask::new(Kind::new(text).map_err(|error| error.to_string())?, None))
}

/// Fails when they do not go in one piece: in two it would not be all or nothing.
pub(super) fn fit_one_message(n_tasks: usize) -> Result<(), Error> {
    match n_tasks {
        0 => Err(Error::Usage("there is no task: give one on each line".into())),
        1..=BATCH_MAX => Ok(()),
        _ => {
            let text = format!(
                "{n_tasks} tasks, at most {BATCH_MAX} are stored in one piece: let the others join by `laneway submit --group`"
            );
            Err(Error::Usage(text))
        }
    }
}

fn task(line: &str) -> Result<NewTask, String> {
    let mut given: Map<String, Value> = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let payload = given.remove("payload").map(|value| Payload::json(value.to_string()));
    let task: NewTask = serde_json::from_value(Value::Object(given.clone())).map_err(|error| error.to_string())?;
    // The wire passes over fields that it does not know; a person who writes `runat` would wonder.
    let known = super::output::to_object(&task);
    let says_nothing = |value: &Value| matches!(value, Value::Null | Value::Bool(false)) || value == "keep";
    let unknown = given.iter().find(|(name, value)| !known.contains_key(*name) && !says_nothing(value));
    match unknown {
        Some((name, Value::Array(list))) if list.is_empty() && name == "after" => {}
        Some((name, _)) => return Err(format!("'{name}' is no field of a task")),
        None => {}
    }
    Ok(NewTask { payload, ..task })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_task_and_a_slip_is_named_with_its_line() {
        // Proves that payloads are any JSON, that blank lines do no harm, and that nothing is passed over in silence.
        let text = "{\"kind\": \"part\", \"payload\": [1, null]}\n\n{\"kind\": \"mail\", \"lane\": \"high\", \"join\": false}\n";
        let tasks = read(text).unwrap();
        assert_eq!(tasks[0].payload, Some(Payload::json("[1,null]")));
        assert_eq!((tasks[1].lane.as_ref().unwrap().as_str(), &tasks[1].payload), ("high", &None));
        for (line, why) in [
            ("{\"kind\": \"a\", \"runat\": 5}", "line 2: 'runat' is no field of a task"),
            ("{\"lane\": \"low\"}", "line 2: missing field `kind`"),
            ("[1]", "line 2: invalid type"),
        ] {
            let error = read(&format!("{{\"kind\": \"a\"}}\n{line}")).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
        assert_eq!(typed("report").unwrap().kind.as_str(), "report");
        assert_eq!(typed("{\"kind\": \"sum\", \"max_attempts\": 1}").unwrap().max_attempts, Some(1));
        assert!(fit_one_message(0).is_err() && fit_one_message(513).is_err() && fit_one_message(512).is_ok());
    }
}
