//! Bounds what decoding an input may cost, whatever the input claims.
//!
//! A length prefix of 2^62 in front of eight bytes is not dangerous to a decoder that reads element by
//! element, but it is to the code that serde derives around it: that reserves up to 1 MiB on the claim
//! alone, and for elements that take no bytes (`Vec<()>`) it would count to 2^62. A type that contains
//! itself can be nested until the stack ends. Hence two rules, checked before the visitor sees anything:
//!
//! - Sequences and maps of one input hold together at most as many elements as the input has bytes. No
//!   honest encoding is refused: an element has at least one byte of its own, and a nested sequence
//!   has its length prefix. The exception is elements of no bytes; those are not worth a count.
//! - Values are nested at most [`MAX_DEPTH`] deep.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The remaining budget of one input, shared by all levels of its decoding.
#[derive(Debug)]
pub(crate) struct Budget {
    elements_left: Cell<u64>,
    refusal: Cell<Option<Refusal>>,
}

/// Why the guard stopped a decoding. Kept separately, because serde's errors carry only text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A sequence claims more elements than there can be.
    TooMany { claimed: u64, possible: u64 },
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
}

impl Budget {
    /// The budget of an input of this length.
    pub(crate) fn new(input_len_bytes: usize) -> Self {
        Self { elements_left: Cell::new(input_len_bytes as u64), refusal: Cell::new(None) }
    }

    /// Why the guard stopped the decoding, if it did.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.refusal.get()
    }

    /// Wraps the seed `seed` in the guard.
    pub(crate) fn fence<S>(&self, seed: S) -> Fenced<'_, S> {
        Fenced { inner: seed, budget: self, depth_left: MAX_DEPTH }
    }

    fn spend(&self, claimed: Option<usize>) -> Result<(), Refusal> {
        let claimed = claimed.map_or(u64::MAX, |count| count as u64);
        let possible = self.elements_left.get();
        match possible.checked_sub(claimed) {
            Some(left) => {
                self.elements_left.set(left);
                Ok(())
            }
            None => Err(Refusal::TooMany { claimed, possible }),
        }
    }

    fn refuse<E: serde::de::Error>(&self, refusal: Refusal) -> E {
        self.refusal.set(Some(refusal));
        E::custom("refused by the fence")
    }
}

/// A deserializer, seed, visitor or access of serde, wrapped in the guard.
#[derive(Debug)]
pub(crate) struct Fenced<'b, T> {
    inner: T,
    budget: &'b Budget,
    depth_left: u32,
}

impl<'b, T> Fenced<'b, T> {
    fn around<U>(&self, inner: U) -> Fenced<'b, U> {
        Fenced { inner, budget: self.budget, depth_left: self.depth_left }
    }

    /// `visitor` for a value one level further in.
    fn inward<V, E: serde::de::Error>(&self, visitor: V) -> Result<Fenced<'b, V>, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Fenced { inner: visitor, budget: self.budget, depth_left }),
            None => Err(self.budget.refuse(Refusal::TooDeep)),
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Fenced<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.deserialize(deserializer)
    }
}

/// Values without nested ones need no guard.
macro_rules! forward_leaves {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.inner.$method(visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Fenced<'_, D> {
    type Error = D::Error;

    forward_leaves! {
        deserialize_any deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_option(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.inward(Counted(visitor))?;
        self.inner.deserialize_seq(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_tuple(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_tuple_struct(name, len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let visitor = self.inward(Counted(visitor))?;
        self.inner.deserialize_map(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_struct(name, fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = self.inward(visitor)?;
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A visitor whose number of elements came from the peer, not from the type.
struct Counted<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Fenced<'_, Counted<V>> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.0.expecting(formatter)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        if let Err(refusal) = self.budget.spend(access.size_hint()) {
            return Err(self.budget.refuse(refusal));
        }
        let access = self.around(access);
        self.inner.0.visit_seq(access)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        if let Err(refusal) = self.budget.spend(access.size_hint()) {
            return Err(self.budget.refuse(refusal));
        }
        let access = self.around(access);
        self.inner.0.visit_map(access)
    }
}

/// The visits of a format that is not self-describing, for the values guarded above.
impl<'de, V: Visitor<'de>> Visitor<'de> for Fenced<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_some(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let deserializer = self.around(deserializer);
        self.inner.visit_newtype_struct(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.around(access);
        self.inner.visit_seq(access)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let access = self.around(access);
        self.inner.visit_enum(access)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Fenced<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Fenced<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let seed = self.around(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Fenced<'b, A> {
    type Error = A::Error;
    type Variant = Fenced<'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, budget, depth_left } = self;
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, Fenced { inner: variant, budget, depth_left }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Fenced<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}

/// 64: far above any message that a person would define, far below what a task's stack of 2 MiB holds
/// even in an unoptimised build.
pub(crate) const MAX_DEPTH: u32 = 64;
