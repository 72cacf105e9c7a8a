//! Typed requests, shared by caller and handler.

use std::time::Duration;

use serde::{Serialize, de::DeserializeOwned};

/// A request type, which also defines the method's name and the type of its answer.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Add { a: u64, b: u64 }
///
/// #[derive(Serialize, Deserialize)]
/// struct Sum(u64);
///
/// impl shiplane::Request for Add {
///     const METHOD: &'static str = "calculator.add";
///     type Response = Sum;
/// }
/// ```
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// The method's name: by habit `group.verb`.
    const METHOD: &'static str;

    /// What the caller waits for at most, and the handler may take.
    const TIMEOUT: Duration = Duration::from_secs(30);

    /// The answer. Like the request it may take up to 1 MiB; send what is larger as a file.
    type Response: Serialize + DeserializeOwned + Send + 'static;
}
