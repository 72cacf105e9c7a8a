//! curl from nginx, over HTTPS with TLS 1.3 and AES-128-GCM, under a certificate of our own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::ssh::is_root;
use super::{Contender, Found, START_LIMIT, Sample, Tools, await_listening, free_port};
use super::{slug, version_line};
use crate::bench::workload::Workload;
use crate::process::{self, Running, Signal};

pub(in crate::bench) const NAME: &str = "curl from nginx";

/// Both, and a certificate.
#[derive(Debug)]
pub(super) struct Nginx {
    nginx: PathBuf,
    curl: PathBuf,
    /// Certificate and configuration.
    directory: PathBuf,
}

impl Nginx {
    pub(super) fn find(tools: &Tools, workload: &Workload) -> Result<Found> {
        let programs = ["nginx", "curl", "openssl"].map(|program| tools.find(program));
        let [Some(nginx), Some(curl), Some(openssl)] = programs else {
            return Ok(Err("install nginx-light, curl and openssl".to_owned()));
        };
        let directory = workload.state("nginx")?;
        let mut command = Command::new(openssl);
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        command.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
        command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout"]).arg(directory.join("key.pem"));
        command.arg("-out").arg(directory.join("certificate.pem"));
        process::run("openssl", command.stdin(Stdio::null()).stderr(Stdio::null()))?;
        Ok(Ok(Box::new(Self { nginx, curl, directory })))
    }

    fn start(&self, workload: &Workload) -> Result<(Running, u16)> {
        let port = free_port()?;
        let config = self.directory.join("nginx.conf");
        fs::write(&config, self.config(workload, port)).context("cannot write nginx.conf")?;
        let mut command = Command::new(&self.nginx);
        command.args(["-e", "stderr", "-p"]).arg(&self.directory).arg("-c").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start("nginx", &mut command)?;
        await_listening(&mut running, "nginx", port)?;
        Ok((running, port))
    }

    fn config(&self, workload: &Workload, port: u16) -> String {
        // Without it the worker gives up root for a user who may not enter our directory.
        let user = if is_root() { "user root root;\n" } else { "" };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path temporary;\n"))
            .concat();
        format!(
            "{user}daemon off;\nworker_processes 1;\npid nginx.pid;\nevents {{ }}\n\
             http {{\naccess_log off;\nsendfile on;\n{temporary}server {{\nlisten 127.0.0.1:{port} ssl;\n\
             ssl_certificate certificate.pem;\nssl_certificate_key key.pem;\nssl_protocols TLSv1.3;\n\
             ssl_conf_command Ciphersuites {CIPHER};\nroot \"{}\";\n}}\n}}\n",
            workload.source.display(),
        )
    }
}

impl Contender for Nginx {
    fn name(&self) -> &str {
        NAME
    }

    fn checks(&self) -> &'static str {
        "nothing"
    }

    fn version(&self) -> String {
        format!("{}, {}", version_line(&self.curl, "--version"), version_line(&self.nginx, "-v"))
    }

    fn run(&mut self, workload: &Workload) -> Result<Sample> {
        let destination = workload.destination(&slug(NAME))?;
        let (server, port) = self.start(workload)?;
        let name = workload.item.file_name().unwrap_or_default();
        let mut command = Command::new(&self.curl);
        command.args(["-q", "-sS", "--fail", "--tlsv1.3", "--tls13-ciphers", CIPHER, "--noproxy", "*"]);
        command.arg("--cacert").arg(self.directory.join("certificate.pem"));
        command.arg("-o").arg(destination.join(name));
        command.arg(format!("https://127.0.0.1:{port}/{}", name.to_string_lossy()));
        let received = workload.carry(NAME, command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        // The worker ends with it, and counts as its own.
        server.signal(Signal::Terminate)?;
        let sender = server.wait(START_LIMIT)?;
        Ok(received.served_by(sender))
    }
}

const CIPHER: &str = "TLS_AES_128_GCM_SHA256";
