//! Sending by a code: `client.send(paths)`.

use std::path::PathBuf;

use crate::{
    client::Client,
    server::{SendSettings, ServerBuilder},
};

impl Client {
    /// Sends files and directories to the holder of a code: bind the server that this prepares, tell the receiver its
    /// [code](crate::Server::code), and [run](crate::Server::run) it. Each path is sent by its name; one that ends in `/.`
    /// stands for the content of the directory. Nothing else can be read, and nothing written.
    ///
    /// ```no_run
    /// # async fn example(client: shiplane::Client) -> Result<(), shiplane::Error> {
    /// let server = client.send(["photos", "notes.txt"]).bind("0.0.0.0:0").await?;
    /// println!("on the other machine: shiplane receive {}", server.code().unwrap_or_default());
    /// server.run().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn send<P: Into<PathBuf>>(&self, paths: impl IntoIterator<Item = P>) -> ServerBuilder {
        let paths = paths.into_iter().map(Into::into).collect();
        ServerBuilder::sending(self.places().clone(), self.identity().clone(), SendSettings::new(paths))
    }

    /// Sends a text of at most 64 KiB, as [`send`](Self::send) does files.
    pub fn send_text(&self, text: impl Into<String>) -> ServerBuilder {
        let settings = SendSettings { text: Some(text.into()), ..SendSettings::new(Vec::new()) };
        ServerBuilder::sending(self.places().clone(), self.identity().clone(), settings)
    }
}
