//! A method's name with its request and response types.

use std::marker::PhantomData;

/// A method's name with its request and response types, so that caller and handler agree.
///
/// ```
/// use shiplane_rpc::Method;
/// /// Adds two numbers.
/// const ADD: Method<(u32, u32), u64> = Method::new("demo.add");
/// assert_eq!(ADD.name(), "demo.add");
/// ```
#[derive(Debug)]
pub struct Method<Request, Response> {
    name: &'static str,
    types: PhantomData<fn(Request) -> Response>,
}

impl<Request, Response> Method<Request, Response> {
    /// The method called `name`, by convention `group.verb`.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

// Derived, these would ask the same of the types, which are only named here.
impl<Request, Response> Clone for Method<Request, Response> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Request, Response> Copy for Method<Request, Response> {}
