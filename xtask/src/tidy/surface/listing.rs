//! The surface as Rust: each item that can be named from outside, with its signatures and no more.

use std::{collections::HashSet, fmt, mem};

use proc_macro2::TokenTree;
use quote::ToTokens;
use syn::{
    Attribute, Block, Field, Fields, File, ImplItem, ImplItemFn, Item, ItemEnum, ItemFn, ItemImpl,
    ItemStruct, ItemTrait, Signature, Token, TraitItemFn, Type,
    punctuated::Punctuated,
    visit_mut::{self, VisitMut},
};

use super::super::model::{Crate, Head, Meaning, is_conditional, leaves};

/// All of a crate's surface, in order of the names.
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
}

/// One item.
#[derive(Default)]
pub(super) struct Entry {
    /// Its path within the crate.
    pub(super) path: String,
    is_type: bool,
    /// It is of another crate.
    is_from_elsewhere: bool,
    /// A caller may match it or write it out, without anything more.
    pub(super) is_exhaustive: bool,
    /// What returns a future, itself or its methods: names and docs.
    pub(super) futures: Vec<(String, String)>,
    text: String,
}

impl Listing {
    pub(super) fn of(krate: &Crate) -> Self {
        let mut named = Vec::new();
        visit(krate, 0, "", &mut named);
        let listed: Vec<Meaning> = named.iter().map(|(_, meaning)| meaning.clone()).collect();
        let mut seen = HashSet::new();
        let mut entries: Vec<Entry> = (named.into_iter())
            .filter(|(path, meaning)| seen.insert((path.clone(), format!("{meaning:?}"))))
            .map(|(path, meaning)| Entry::of(krate, &listed, path, &meaning))
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    /// Those that are defined here.
    pub(super) fn own_types(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_type && !entry.is_from_elsewhere).count()
    }

    /// All that can be named through this crate.
    pub(super) fn types(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_type).count()
    }
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "// {} public types, {} of them defined here.", self.types(), self.own_types())?;
        writeln!(f, "// Written by `cargo xtask tidy --bless`.")?;
        self.entries.iter().try_for_each(|entry| write!(f, "\n// {}\n{}", entry.path, entry.text))
    }
}

/// Everything that can be named from outside, by path.
fn visit(krate: &Crate, module: usize, prefix: &str, named: &mut Vec<(String, Meaning)>) {
    for (i, (head, item)) in krate.modules[module].items.iter().enumerate() {
        if !head.is_public || head.is_hidden() {
            continue;
        }
        match item {
            Item::Mod(inner) => {
                let name = inner.ident.to_string();
                for meaning in krate.meanings_of(module, std::slice::from_ref(&name)) {
                    bring(krate, prefix, Some(&name), meaning, named);
                }
            }
            Item::Use(brings) => {
                for (path, name) in leaves(&brings.tree) {
                    for meaning in krate.meanings_of(module, &path) {
                        bring(krate, prefix, name.as_deref(), meaning, named);
                    }
                }
            }
            _ => named
                .extend(head.name.iter().map(|name| (format!("{prefix}{name}"), Meaning::Item(module, i)))),
        }
    }
}

/// What a name stands for, or a glob, which is of a module.
fn bring(
    krate: &Crate,
    prefix: &str,
    name: Option<&str>,
    meaning: Meaning,
    named: &mut Vec<(String, Meaning)>,
) {
    match (meaning, name) {
        (Meaning::Module(found), None) => visit(krate, found, prefix, named),
        (Meaning::Module(found), Some(name)) => visit(krate, found, &format!("{prefix}{name}::"), named),
        (meaning, name) => {
            let is_named = match meaning {
                Meaning::Item(module, i) => {
                    let (head, item) = &krate.modules[module].items[i];
                    !head.is_hidden() && (head.is_public || matches!(item, Item::Macro(_)))
                }
                _ => true,
            };
            named.extend(is_named.then(|| (format!("{prefix}{}", name.unwrap_or("*")), meaning)));
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
        let mut public = Public { futures: Vec::new() };
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
struct Public {
    futures: Vec<(String, String)>,
}

impl Public {
    /// Notes the name and the docs of a function that returns a future.
    fn note(&mut self, signature: &Signature, attributes: &[Attribute]) {
        let returned = signature.output.to_token_stream().to_string();
        if signature.asyncness.is_some() || returned.contains("Future") {
            let docs = attributes.iter().filter(|attribute| attribute.path().is_ident("doc"));
            let docs = docs.map(|attribute| attribute.to_token_stream().to_string());
            self.futures.push((signature.ident.to_string(), docs.collect()));
        }
    }
}

impl VisitMut for Public {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        attributes.retain(|attribute| attribute.path().is_ident("derive") || is_non_exhaustive(attribute));
    }

    fn visit_block_mut(&mut self, block: &mut Block) {
        block.stmts.clear();
    }

    fn visit_item_fn_mut(&mut self, item: &mut ItemFn) {
        self.note(&item.sig, &item.attrs);
        visit_mut::visit_item_fn_mut(self, item);
    }

    fn visit_impl_item_fn_mut(&mut self, item: &mut ImplItemFn) {
        self.note(&item.sig, &item.attrs);
        visit_mut::visit_impl_item_fn_mut(self, item);
    }

    fn visit_trait_item_fn_mut(&mut self, item: &mut TraitItemFn) {
        self.note(&item.sig, &item.attrs);
        visit_mut::visit_trait_item_fn_mut(self, item);
    }

    fn visit_item_struct_mut(&mut self, item: &mut ItemStruct) {
        match &mut item.fields {
            Fields::Named(fields) => keep_shown(&mut fields.named),
            Fields::Unnamed(fields) => keep_shown(&mut fields.unnamed),
            Fields::Unit => {}
        }
        visit_mut::visit_item_struct_mut(self, item);
    }

    fn visit_item_enum_mut(&mut self, item: &mut ItemEnum) {
        let variants = mem::take(&mut item.variants).into_iter();
        item.variants = variants.filter(|variant| !Head::of(variant).is_hidden()).collect();
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

fn keep_shown(fields: &mut Punctuated<Field, Token![,]>) {
    *fields = mem::take(fields).into_iter().filter(is_shown).collect();
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
