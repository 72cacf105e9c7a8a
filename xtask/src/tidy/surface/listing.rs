//! The surface as Rust: each item that can be named from outside, with its signatures and no more.

use std::mem;

use proc_macro2::TokenTree;
use quote::ToTokens;
use syn::{
    Attribute, Block, Fields, File, ImplItem, Item, ItemEnum, ItemImpl, ItemStruct, ItemTrait, Signature,
    Token, Type,
    punctuated::Punctuated,
    visit_mut::{self, VisitMut},
};

use super::super::model::{Crate, Head, Meaning, is_conditional, leaves};

/// One item.
#[derive(Default)]
pub(super) struct Entry {
    /// Its path within the crate.
    pub(super) path: String,
    pub(super) is_type: bool,
    pub(super) is_from_elsewhere: bool,
    /// A caller may match it or write it out, without anything more.
    pub(super) is_exhaustive: bool,
    /// What returns a future, itself or its methods: names and docs.
    pub(super) futures: Vec<(String, String)>,
    text: String,
}

/// All of a crate's surface, in order of the names.
pub(super) fn entries(krate: &Crate) -> Vec<Entry> {
    let mut named = Vec::new();
    visit(krate, 0, "", &mut named);
    let listed: Vec<Meaning> = named.iter().map(|(_, meaning)| meaning.clone()).collect();
    let named = named.into_iter();
    let mut entries: Vec<_> =
        named.map(|(path, meaning)| Entry::of(krate, &listed, path, &meaning)).collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| (&a.path, &a.text) == (&b.path, &b.text));
    entries
}

/// As the file in `docs/api`.
pub(super) fn written(entries: &[Entry]) -> String {
    let (types, own) = counts(entries);
    let head = format!(
        "// {types} public types, {own} of them defined here.\n// Written by `cargo xtask tidy --bless`.\n"
    );
    let entries = entries.iter().map(|entry| format!("\n// {}\n{}", entry.path, entry.text));
    std::iter::once(head).chain(entries).collect()
}

/// The types that can be named through the crate, and those that are defined in it.
pub(super) fn counts(entries: &[Entry]) -> (usize, usize) {
    let types = || entries.iter().filter(|entry| entry.is_type);
    (types().count(), types().filter(|entry| !entry.is_from_elsewhere).count())
}

/// Everything that can be named from outside, by path.
fn visit(krate: &Crate, module: usize, prefix: &str, named: &mut Vec<(String, Meaning)>) {
    for (i, (head, item)) in krate.modules[module].items.iter().enumerate() {
        if !head.is_public || head.is_hidden() {
            continue;
        }
        let brought = match item {
            Item::Mod(inner) => vec![(vec![inner.ident.to_string()], Some(inner.ident.to_string()))],
            Item::Use(brings) => leaves(&brings.tree),
            _ => {
                let names = head.name.iter().map(|name| format!("{prefix}{name}"));
                named.extend(names.map(|name| (name, Meaning::Item(module, i))));
                continue;
            }
        };
        let brought = brought.into_iter().flat_map(|(path, name)| {
            krate.meanings_of(module, &path).into_iter().map(move |meaning| (name.clone(), meaning))
        });
        for (name, meaning) in brought {
            let path = format!("{prefix}{}", name.as_deref().unwrap_or("*"));
            match (&meaning, name) {
                (Meaning::Module(found), None) => visit(krate, *found, prefix, named),
                (Meaning::Module(found), Some(_)) => visit(krate, *found, &format!("{path}::"), named),
                (Meaning::Item(module, i), _) => {
                    let (head, item) = &krate.modules[*module].items[*i];
                    let is_named = !head.is_hidden() && (head.is_public || matches!(item, Item::Macro(_)));
                    named.extend(is_named.then_some((path, meaning)));
                }
                (Meaning::Elsewhere(_), _) => named.push((path, meaning)),
            }
        }
    }
}

impl Entry {
    fn of(krate: &Crate, listed: &[Meaning], path: String, meaning: &Meaning) -> Self {
        let mut entry = Self { path, ..Self::default() };
        let (module, i) = match meaning {
            Meaning::Item(module, i) => (*module, *i),
            Meaning::Module(_) => return entry,
            Meaning::Elsewhere(from) => {
                let name = from.rsplit("::").next().unwrap_or_default();
                entry.is_from_elsewhere = true;
                // `CamelCase`, unlike functions and constants.
                entry.is_type = name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
                entry.text = format!("pub use {from};\n");
                return entry;
            }
        };
        let (head, item) = krate.modules[module].items[i].clone();
        entry.is_type = !matches!(item, Item::Const(_) | Item::Static(_) | Item::Fn(_));
        entry.is_exhaustive = !head.attributes.iter().any(is_non_exhaustive)
            && match &item {
                Item::Struct(item) => !item.fields.is_empty() && item.fields.iter().all(is_shown),
                Item::Enum(_) => true,
                _ => false,
            };
        let mut items = vec![item];
        let impls = krate.items().filter(|_| entry.is_type).filter_map(|(module, (head, item))| {
            let Item::Impl(item) = item else { return None };
            let Type::Path(of) = &*item.self_ty else { return None };
            let names: Vec<_> = of.path.segments.iter().map(|part| part.ident.to_string()).collect();
            let is_its = !head.is_hidden() && krate.meanings_of(module, &names).contains(meaning);
            let is_private = |word: &str| {
                let meanings = krate.meanings_of(module, &[word.to_owned()]);
                let is_ours = |meaning: &Meaning| matches!(meaning, Meaning::Item(..));
                meanings.iter().any(|meaning| is_ours(meaning) && !listed.contains(meaning))
            };
            let of = item.trait_.as_ref().map(|(_, of, _)| of.to_token_stream().to_string());
            let can_be_named = of.is_none_or(|of| !of.split(' ').any(is_private));
            (is_its && can_be_named).then(|| expanded(krate, item.clone()))
        });
        items.extend(impls.map(Item::Impl));
        let mut public = Public::default();
        items.iter_mut().for_each(|item| public.visit_item_mut(item));
        items.retain(
            |item| !matches!(item, Item::Impl(item) if item.trait_.is_none() && item.items.is_empty()),
        );
        entry.futures = public.futures;
        entry.text = prettyplease::unparse(&File { shebang: None, attrs: Vec::new(), items });
        entry
    }
}

/// With the functions that macros without arguments stand for.
fn expanded(krate: &Crate, mut item: ItemImpl) -> ItemImpl {
    let expand = |part: ImplItem| {
        let ImplItem::Macro(called) = &part else { return vec![part] };
        let rules = krate.items().find_map(|(_, (_, item))| match item {
            Item::Macro(item) if item.ident.as_ref() == called.mac.path.get_ident() => Some(&item.mac.tokens),
            _ => None,
        });
        let groups = rules.into_iter().flat_map(|rules| rules.clone().into_iter());
        let body = groups.filter(|token| matches!(token, TokenTree::Group(_))).last();
        let body = body.map(|body| body.to_string().replace('$', ""));
        body.and_then(|body| syn::parse_str::<ItemImpl>(&format!("impl Expanded {body}")).ok())
            .map_or_else(Vec::new, |expanded| expanded.items)
    };
    item.items = item.items.into_iter().flat_map(expand).collect();
    item
}

/// Takes away what cannot be named from outside, and what is no signature.
#[derive(Default)]
struct Public {
    /// Of what is visited.
    docs: String,
    futures: Vec<(String, String)>,
}

impl VisitMut for Public {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
        self.docs = docs.map(|attribute| attribute.to_token_stream().to_string()).collect();
        attributes.retain(|attribute| attribute.path().is_ident("derive") || is_non_exhaustive(attribute));
    }

    /// Its attributes were visited right before.
    fn visit_signature_mut(&mut self, signature: &mut Signature) {
        let returned = signature.output.to_token_stream().to_string();
        if signature.asyncness.is_some() || returned.contains("Future") {
            self.futures.push((signature.ident.to_string(), mem::take(&mut self.docs)));
        }
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        block.stmts.clear();
    }

    fn visit_item_struct_mut(&mut self, item: &mut ItemStruct) {
        match &mut item.fields {
            Fields::Named(fields) => keep(&mut fields.named, is_shown),
            Fields::Unnamed(fields) => keep(&mut fields.unnamed, is_shown),
            Fields::Unit => {}
        }
        visit_mut::visit_item_struct_mut(self, item);
    }

    fn visit_item_enum_mut(&mut self, item: &mut ItemEnum) {
        keep(&mut item.variants, |variant| !Head::of(variant).is_hidden());
        visit_mut::visit_item_enum_mut(self, item);
    }

    fn visit_item_trait_mut(&mut self, item: &mut ItemTrait) {
        item.items.retain(|part| is_there(&Head::of(part)));
        visit_mut::visit_item_trait_mut(self, item);
    }

    fn visit_item_impl_mut(&mut self, item: &mut ItemImpl) {
        item.items.retain(|part| item.trait_.is_none() && is_shown(part));
        visit_mut::visit_item_impl_mut(self, item);
    }
}

fn keep<T>(parts: &mut Punctuated<T, Token![,]>, is_kept: impl Fn(&T) -> bool) {
    *parts = mem::take(parts).into_iter().filter(is_kept).collect();
}

fn is_shown(part: &impl ToTokens) -> bool {
    let head = Head::of(part);
    head.is_public && is_there(&head)
}

fn is_there(head: &Head) -> bool {
    !head.is_hidden() && !is_conditional(&head.attributes)
}

/// Whether it says that more may come. The crates of the workspace, which have the feature, match without a wildcard
/// arm, so that the compiler names each place that must decide about something new.
fn is_non_exhaustive(attribute: &Attribute) -> bool {
    let text = attribute.meta.to_token_stream().to_string().replace(' ', "");
    ["non_exhaustive", "cfg_attr(not(feature=\"internals\"),non_exhaustive)"].contains(&text.as_str())
}
