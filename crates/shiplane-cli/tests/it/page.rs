//! The status page in a browser: headless Chromium, driven by ChromeDriver. Where either is missing, the test says so and
//! ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, iter};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Machine, Running};
use crate::status::Shown;

#[test]
fn the_page_shows_running_jobs_at_any_width_light_and_dark() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("skipped: chromium and chromedriver are needed (Debian: chromium, chromium-driver)");
        return;
    };
    let scene = Scene::new();
    for (width, is_dark) in [(1440, false), (1440, true), (360, false), (360, true)] {
        browser.look(width, is_dark);
        browser.open(&format!("http://{}/", scene.shown.addr));
        browser.wait("return document.querySelectorAll('#jobs progress').length === 3");
        let [wide, page] = ["innerWidth", "scrollWidth"].map(|which| match which {
            "innerWidth" => browser.number("return window.innerWidth"),
            _ => browser.number("return document.documentElement.scrollWidth"),
        });
        assert_eq!((wide, page <= wide), (width, true), "it is {page} wide on {wide}");
        let text = browser.text("return document.body.innerText");
        for shown in ["laptop", "studio", "2026/summer", "inbox/recording.wav", "this machine"] {
            assert!(text.contains(shown), "no {shown} in {text}");
        }
        assert_eq!(browser.text("return document.getElementById('state').textContent"), "serving");
        assert_eq!(browser.number("return document.querySelectorAll('#failures .failed').length"), 1);
        let full = browser.number("return document.querySelector('#jobs progress').max");
        assert!(full > 1_000_000, "{full}");
        let back = browser.text("return getComputedStyle(document.body).backgroundColor");
        let first: u8 = back.trim_start_matches("rgb(").split(',').next().unwrap().parse().unwrap();
        assert_eq!(first < 128, is_dark, "{back}");
        browser.wait("return document.getElementById('sent-rate').textContent !== '–'");
        if (width == 360) == is_dark {
            browser.picture(&format!("status-{width}.png"));
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
    // A name that is markup stays text.
    let hostile = Machine::new();
    let name = "<img src=x onerror=document.title='gotcha'>";
    hostile.write(name, vec![7; 20_000_000]);
    let push = Running::start(&mut hostile.command(&["push", name, &scene.shown.ticket]));
    browser.wait("return document.body.innerText.includes('onerror=')");
    assert_eq!(browser.number("return document.images.length"), 0);
    assert!(!browser.text("return document.title").contains("gotcha"));
    // Nor does any other script run.
    browser.run(
        "const script = document.createElement('script'); script.textContent = 'window.gotcha = 1'; \
         document.body.append(script);",
    );
    assert!(browser.run("return window.gotcha === undefined").as_bool().unwrap());
    drop((push, scene));
    browser.wait("return !document.getElementById('lost').hidden");
    assert_eq!(browser.text("return document.getElementById('state').textContent"), "no answer");
}

/// A server with something to show: three transfers of three peers, and one that has failed.
struct Scene {
    shown: Shown,
    _running: Vec<Running>,
    _machines: Vec<Machine>,
}

impl Scene {
    fn new() -> Self {
        let there = Machine::new();
        there.write("src/2026/summer/film.mkv", vec![7; 30_000_000]);
        there.write("src/backups/mail.tar", vec![7; 60_000_000]);
        there.dir("src/inbox");
        let peers = ["laptop", "studio", "nas"].map(|name| {
            let machine = Machine::new();
            there.run(&["peers", "add", name, &machine.id(), "--read", "--write"]).done();
            (name, machine)
        });
        let args = ["--metrics-names", "--writable", "--rate", "6MB"];
        let shown = Shown::new(&there, &args);
        let listening = shown.server.listening();
        let [id, address] = ["peer_id", "address"].map(|name| listening[name].as_str().unwrap().to_owned());
        let [(_, laptop), (_, studio), (_, nas)] = &peers;
        let at = |path: &str| format!("{id}@{address}/{path}");
        let get = Running::start(&mut nas.command(&["get", &at("backups"), "copy"]));
        shown.status_with(|status| status["peers"][0]["jobs"][0]["moved_bytes"].as_u64() > Some(0));
        get.interrupt();
        get.end();
        shown.status_with(|status| status["failures"][0]["job"] == "get");
        studio.write("recording.wav", vec![1; 90_000_000]);
        let running = vec![
            Running::start(&mut nas.command(&["get", &at("backups"), "copy"])),
            Running::start(&mut laptop.command(&["get", &at("2026/summer"), "summer"])),
            Running::start(&mut studio.command(&["push", "recording.wav", &at("inbox")])),
        ];
        shown.status_with(|status| {
            let jobs =
                status["peers"].as_array().unwrap().iter().flat_map(|peer| peer["jobs"].as_array().unwrap());
            jobs.filter(|job| job["moved_bytes"].as_u64() > Some(3_000_000)).count() == 3
        });
        let machines = peers.into_iter().map(|(_, machine)| machine).chain([there]).collect();
        Self { shown, _running: running, _machines: machines }
    }
}

/// ChromeDriver and one session of it.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
    _profile: TempDir,
}

impl Browser {
    /// `None`: there is no browser on this machine.
    fn start() -> Option<Self> {
        let chromium =
            ["chromium", "chromium-browser", "google-chrome"].iter().find_map(|name| found(name))?;
        let mut driver =
            Command::new(found("chromedriver")?).arg("--port=0").stdout(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take()?).lines();
        let port = lines.find_map(|line| {
            line.ok()?.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok()
        })?;
        // It may go on to say something.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = TempDir::new().expect("a directory");
        let mut browser = Self { driver, port, session: String::new(), _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let args: Vec<&str> = ARGUMENTS.into_iter().chain([profile.as_str()]).collect();
        let options = json!({ "binary": chromium, "args": args });
        let wanted = json!({ "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let made = browser.ask("", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session = format!("/{}", made["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    fn look(&mut self, width: u64, is_dark: bool) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    fn open(&mut self, url: &str) {
        self.ask("/url", &json!({ "url": url }));
    }

    fn run(&mut self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    fn number(&mut self, script: &str) -> u64 {
        self.run(script).as_u64().unwrap_or_else(|| panic!("no number: {script}"))
    }

    fn text(&mut self, script: &str) -> String {
        self.run(script).as_str().unwrap_or_else(|| panic!("no text: {script}")).to_owned()
    }

    /// Asks until it is so.
    fn wait(&mut self, script: &str) {
        let ended = Instant::now() + HANG;
        let mut answers = iter::repeat_with(|| self.run(script)).take_while(|_| Instant::now() < ended);
        let is_so = answers.any(|answer| answer == true);
        assert!(is_so, "{script}");
    }

    /// What is on the console.
    fn complaints(&mut self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({ "type": "browser" }));
        log.as_array().expect("a log").iter().map(|line| line["message"].to_string()).collect()
    }

    /// For the documents, if they are to be renewed: `cargo xtask screenshots`.
    fn picture(&mut self, name: &str) {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true }));
        let picture = taken["data"].as_str().expect("a picture");
        let picture = data_encoding::BASE64.decode(picture.as_bytes()).expect("base64");
        assert!(picture.starts_with(b"\x89PNG"));
        if let Some(directory) = env::var_os("SHIPLANE_SCREENSHOTS") {
            fs::write(Path::new(&directory).join(name), picture).expect("a file");
        }
    }

    fn devtools(&mut self, command: &str, params: Value) -> Value {
        self.ask("/goog/cdp/execute", &json!({ "cmd": command, "params": params }))
    }

    /// One command of WebDriver.
    fn ask(&self, path: &str, body: &Value) -> Value {
        self.send("POST", path, &body.to_string())
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the driver");
        stream.set_read_timeout(Some(HANG)).expect("a limit");
        let head = format!(
            "{method} /session{}{path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.session,
            self.port,
            body.len()
        );
        stream.write_all((head + body).as_bytes()).expect("a request");
        // It does not close the connection at once.
        let mut stream = BufReader::new(stream);
        let mut len = 0;
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).expect("a header");
            match line.to_lowercase().split_once("content-length:") {
                Some((_, value)) => len = value.trim().parse().expect("a length"),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; len];
        stream.read_exact(&mut body).expect("a body");
        let mut body: Value = serde_json::from_slice(&body).expect("JSON");
        let value = body["value"].take();
        assert!(value["error"].is_null(), "{path}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // The browser ends with its session.
            self.send("DELETE", "", "");
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// Where a program is.
fn found(name: &str) -> Option<String> {
    let directories = env::var_os("PATH")?;
    let path =
        env::split_paths(&directories).map(|directory| directory.join(name)).find(|path| path.is_file())?;
    path.to_str().map(str::to_owned)
}

/// It must run as root too, and use no internet.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--hide-scrollbars",
    "--disable-lcd-text",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// Far above what a browser takes to start: a hang guard.
const HANG: Duration = Duration::from_secs(120);
