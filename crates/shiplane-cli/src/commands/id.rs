//! `shiplane id`

use std::io::{self, Write};

use shiplane::Client;

use crate::failure::Failure;
use crate::runtime;

pub(super) fn run() -> Result<(), Failure> {
    runtime::run(async {
        let client = Client::builder().build().await?;
        writeln!(io::stdout(), "{}", client.id()).map_err(Failure::Stdout)
    })
    .map_err(Failure::Runtime)?
}
