//! A real Chromium without a window, driven over `WebDriver`: what a person would see, press and type.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Http, Place, tools, wait_for};

/// Ended when dropped, with its driver.
pub(crate) struct Browser {
    driver: Child,
    http: Http,
    session: String,
}

impl Browser {
    pub(crate) fn start(place: &Place) -> Self {
        Self::start_with(place, &json!({}))
    }

    /// One whose user has turned JavaScript off.
    pub(crate) fn without_javascript(place: &Place) -> Self {
        Self::start_with(place, &json!({"profile.managed_default_content_settings.javascript": 2}))
    }

    fn start_with(place: &Place, prefs: &Value) -> Self {
        let mut command = Command::new(tools::chromedriver());
        command.args(["--port=0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told =
            |line: String| line.split("started successfully on port ").nth(1)?.trim_end_matches('.').parse().ok();
        let port: Option<u16> = lines.by_ref().find_map(told);
        // What it says later must go somewhere, or it ends.
        std::thread::spawn(move || lines.for_each(drop));
        let http = Http::at(format!("127.0.0.1:{}", port.expect("chromedriver tells its port")));
        let folder = tempfile::tempdir_in(place.dir()).unwrap().keep();
        let options = json!({
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1440,900",
                     // A name of another machine, of which a browser expects no more than of any.
                     "--host-resolver-rules=MAP tasks.example 127.0.0.1",
                     format!("--user-data-dir={}", folder.display())],
            "prefs": prefs,
        });
        let wanted =
            json!({"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let made = http.post_json("/session", &json!({"capabilities": {"alwaysMatch": wanted}})).is(200).json();
        let session = made["value"]["sessionId"].as_str().unwrap().to_owned();
        Self { driver, http, session }
    }

    pub(crate) fn go(&self, url: &str) {
        self.say("url", &json!({ "url": url }));
    }

    pub(crate) fn reload(&self) {
        self.say("refresh", &json!({}));
    }

    /// The page becomes so large, and smaller than a window can be.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.say("goog/cdp/execute", &json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": size}));
    }

    /// What a script gives back. Works though the page's policy forbids scripts, as the driver is no part of the page.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.say("execute/sync", &json!({"script": script, "args": []}))
    }

    /// All that the page's source holds.
    pub(crate) fn source(&self) -> String {
        self.look("source").as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn address(&self) -> String {
        self.look("url").as_str().unwrap_or_default().to_owned()
    }

    /// What is written in the first element that a selector meets.
    pub(crate) fn text(&self, selector: &str) -> String {
        let element = self.element(selector);
        self.look(&format!("element/{element}/text")).as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.say(&format!("element/{element}/click"), &json!({}));
    }

    /// Types into the element, as on a keyboard.
    pub(crate) fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.say(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Presses keys wherever the focus is.
    pub(crate) fn press(&self, keys: &str) {
        let one = |key: char| [json!({"type": "keyDown", "value": key}), json!({"type": "keyUp", "value": key})];
        let actions: Vec<Value> = keys.chars().flat_map(one).collect();
        self.say("actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}));
    }

    /// Waits until an element says so.
    #[track_caller]
    pub(crate) fn wait_for_text(&self, selector: &str, says: &str) {
        wait_for(&format!("{selector} to say {says}"), || {
            let element = self.find(selector)?;
            // It may be replaced between two questions.
            let text = self.try_look(&format!("element/{element}/text"))?;
            text.as_str().is_some_and(|text| text.contains(says)).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, selector: &str) {
        wait_for(selector, || self.find(selector));
    }

    /// What the console has said since the last time it was asked, warnings and worse: violations of the policy are among it.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let lines = self.say("se/log", &json!({"type": "browser"}));
        let lines = lines.as_array().cloned().unwrap_or_default().into_iter();
        let is_bad = |line: &Value| line["level"] == "SEVERE" || line["level"] == "WARNING";
        lines.filter(is_bad).map(|line| line["message"].to_string()).collect()
    }

    #[track_caller]
    fn element(&self, selector: &str) -> String {
        wait_for(selector, || self.find(selector))
    }

    fn find(&self, selector: &str) -> Option<String> {
        let question = json!({"using": "css selector", "value": selector});
        let found = self.http.post_json(&format!("/session/{}/element", self.session), &question);
        let found = found.json();
        Some(found["value"].as_object()?.values().next()?.as_str()?.to_owned())
            .filter(|_| found["value"]["error"].is_null())
    }

    #[track_caller]
    fn say(&self, what: &str, body: &Value) -> Value {
        self.http.post_json(&format!("/session/{}/{what}", self.session), body).is(200).json()["value"].take()
    }

    #[track_caller]
    fn look(&self, what: &str) -> Value {
        self.http.get(&format!("/session/{}/{what}", self.session)).is(200).json()["value"].take()
    }

    fn try_look(&self, what: &str) -> Option<Value> {
        let answer = self.http.get(&format!("/session/{}/{what}", self.session));
        (answer.status == 200).then(|| answer.json()["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver alone would leave it running.
        self.http.ask("DELETE", &format!("/session/{}", self.session), "");
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
