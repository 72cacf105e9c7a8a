//! The modules of one crate, as they are written, and what a name in them means.

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::{Context as _, Result, bail};
use syn::{Attribute, Ident, Item, ItemImpl, ItemMacro, UseTree, Visibility};

/// All modules of a crate that were asked for.
pub(super) struct Crate {
    /// The first is the root.
    pub(super) modules: Vec<Module>,
}

/// One module, in a file of its own or not.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) parent: Option<usize>,
    /// The file that it is in.
    pub(super) text: Rc<str>,
    pub(super) items: Vec<Item>,
    children: Vec<usize>,
    /// What each `use` of it brings in.
    brought_in: Vec<Leaf>,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    Module(usize),
    /// An item, by its module and its place there.
    Item(usize, usize),
    /// Something that a macro makes: the macro's place, and the name.
    Made(usize, usize, String),
    /// Something of another crate, by its path.
    Elsewhere(String),
}

/// One name that a `use` brings in.
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    /// `None` for a glob.
    pub(super) name: Option<String>,
}

impl Crate {
    /// Reads the library of `crates/NAME`, without the items whose attributes `is_left_out` says it of.
    pub(super) fn load(root: &Path, name: &str, is_left_out: fn(&[Attribute]) -> bool) -> Result<Self> {
        let mut krate = Self { modules: Vec::new() };
        let src = root.join("crates").join(name).join("src");
        krate.load_file(&src.join("lib.rs"), &src, String::new(), None, is_left_out)?;
        Ok(krate)
    }

    /// What a path means, seen from a module.
    pub(super) fn meanings_of<'a>(&'a self, module: usize, path: &'a [String]) -> Vec<Meaning> {
        self.meanings_of_within(module, path, &mut Vec::new())
    }

    /// The `impl` that a macro without arguments stands for, with its text.
    pub(super) fn expand(&self, name: &str) -> Option<(ItemImpl, Rc<str>)> {
        let mut macros = self.modules.iter().flat_map(|module| {
            let is_it = |item: &&Item| declared(item).is_some_and(|(_, ident)| ident == name);
            module.items.iter().filter(is_it).map(move |item| (module, item))
        });
        let (module, item) = macros.find_map(|(module, item)| match item {
            Item::Macro(item) => Some((module, item)),
            _ => None,
        })?;
        let text = &module.text[item.mac.delimiter.span().join().byte_range()];
        let body = text.split_once("=>")?.1;
        let body = body[body.find('{')? + 1..body.rfind("};")?].replace("$crate", "crate");
        let text = format!("impl Expanded {{{body}}}");
        Some((syn::parse_str(&text).ok()?, text.into()))
    }

    fn load_file(
        &mut self,
        path: &Path,
        dir: &Path,
        name: String,
        parent: Option<usize>,
        is_left_out: fn(&[Attribute]) -> bool,
    ) -> Result<usize> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = syn::parse_file(&text).with_context(|| format!("cannot parse {}", path.display()))?;
        let module = Module::new(name, parent, text.into(), file.items);
        self.load_module(module, dir, is_left_out)
    }

    fn load_module(
        &mut self,
        mut module: Module,
        dir: &Path,
        is_left_out: fn(&[Attribute]) -> bool,
    ) -> Result<usize> {
        module.items.retain(|item| !is_left_out(attributes(item)));
        let (mut inner, text) = (Vec::new(), Rc::clone(&module.text));
        for item in &module.items {
            match item {
                Item::Mod(item) => inner.push(item.clone()),
                Item::Use(item) => module.brought_in.extend(leaves(&item.tree)),
                _ => {}
            }
        }
        let at = self.modules.len();
        self.modules.push(module);
        for item in inner {
            let (name, dir) = (item.ident.to_string(), dir.join(item.ident.to_string()));
            let child = match item.content {
                Some((_, items)) => {
                    let module = Module::new(name, Some(at), Rc::clone(&text), items);
                    self.load_module(module, &dir, is_left_out)?
                }
                None => self.load_file(&module_file(&dir)?, &dir, name, Some(at), is_left_out)?,
            };
            self.modules[at].children.push(child);
        }
        Ok(at)
    }

    /// `asked` has what is being looked up already: a circle of imports brings nothing in.
    fn meanings_within<'a>(
        &'a self,
        module: usize,
        name: &'a str,
        asked: &mut Vec<(usize, &'a str)>,
    ) -> Vec<Meaning> {
        if asked.contains(&(module, name)) {
            return Vec::new();
        }
        asked.push((module, name));
        let here = &self.modules[module];
        let mut found = Vec::new();
        found.extend(
            here.children
                .iter()
                .filter(|child| self.modules[**child].name == name)
                .map(|child| Meaning::Module(*child)),
        );
        for (i, item) in here.items.iter().enumerate() {
            match item {
                Item::Mod(_) | Item::Impl(_) | Item::Use(_) => {}
                Item::Macro(made) if made.ident.is_none() => {
                    found.extend(makes(made, name).then(|| Meaning::Made(module, i, name.to_owned())));
                }
                item => {
                    let is_it = declared(item).is_some_and(|(_, ident)| ident == name);
                    found.extend(is_it.then_some(Meaning::Item(module, i)));
                }
            }
        }
        for Leaf { path, name: brought } in &here.brought_in {
            match brought {
                Some(brought) if brought == name => {
                    found.extend(self.meanings_of_within(module, path, asked))
                }
                Some(_) => {}
                None => {
                    let of = self.meanings_of_within(module, path, asked);
                    found.extend(of.into_iter().flat_map(|of| match of {
                        Meaning::Module(of) => self.meanings_within(of, name, asked),
                        _ => Vec::new(),
                    }));
                }
            }
        }
        asked.pop();
        found.dedup();
        found
    }

    fn meanings_of_within<'a>(
        &'a self,
        module: usize,
        path: &'a [String],
        asked: &mut Vec<(usize, &'a str)>,
    ) -> Vec<Meaning> {
        let Some((first, rest)) = path.split_first() else { return vec![Meaning::Module(module)] };
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.modules[module].parent,
            _ if rest.is_empty() => return self.meanings_within(module, first, asked),
            name => self.meanings_within(module, name, asked).into_iter().find_map(|meaning| match meaning {
                Meaning::Module(found) => Some(found),
                Meaning::Item(..) | Meaning::Made(..) | Meaning::Elsewhere(_) => None,
            }),
        };
        match start {
            Some(start) => self.meanings_of_within(start, rest, asked),
            None => vec![Meaning::Elsewhere(path.join("::"))],
        }
    }
}

impl Module {
    fn new(name: String, parent: Option<usize>, text: Rc<str>, items: Vec<Item>) -> Self {
        Self { name, parent, text, items, children: Vec::new(), brought_in: Vec::new() }
    }
}

/// Whether an item is `#[doc(hidden)]`.
pub(super) fn is_hidden(attributes: &[Attribute]) -> bool {
    let hides = |attribute: &Attribute| attribute.parse_args::<Ident>().is_ok_and(|word| word == "hidden");
    attributes.iter().any(|attribute| attribute.path().is_ident("doc") && hides(attribute))
}

/// Whether it is built only for tests or with a feature.
pub(super) fn is_conditional(attributes: &[Attribute]) -> bool {
    has_condition(attributes, &["test", "feature"])
}

/// Whether it is built only for tests.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    has_condition(attributes, &["test"])
}

fn has_condition(attributes: &[Attribute], words: &[&str]) -> bool {
    let conditions = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg"));
    conditions.filter_map(|attribute| attribute.meta.require_list().ok()).any(|list| {
        let condition = list.tokens.to_string().replace(' ', "");
        let is_on = |word: &&str| condition.starts_with(*word) || condition.contains(&format!("({word}"));
        !condition.starts_with("not(") && words.iter().any(is_on)
    })
}

pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// What an item declares that is no module, and who may name it.
pub(super) fn declared(item: &Item) -> Option<(&Visibility, &Ident)> {
    match item {
        Item::Const(item) => Some((&item.vis, &item.ident)),
        Item::Enum(item) => Some((&item.vis, &item.ident)),
        Item::Fn(item) => Some((&item.vis, &item.sig.ident)),
        Item::Macro(item) => Some((&Visibility::Inherited, item.ident.as_ref()?)),
        Item::Static(item) => Some((&item.vis, &item.ident)),
        Item::Struct(item) => Some((&item.vis, &item.ident)),
        Item::Trait(item) => Some((&item.vis, &item.ident)),
        Item::Type(item) => Some((&item.vis, &item.ident)),
        _ => None,
    }
}

/// Whether a macro that is used as an item seems to define `name`: `fault_codes!` makes a `FaultCode`.
fn makes(item: &ItemMacro, name: &str) -> bool {
    item.mac.path.get_ident().is_some_and(|ident| {
        let words = ident.to_string().replace('_', "");
        words.trim_end_matches('s').eq_ignore_ascii_case(name)
    })
}

/// All names that a `use` brings in.
pub(super) fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let leaf =
        |path: &Ident, name: &Ident| Leaf { path: vec![path.to_string()], name: Some(name.to_string()) };
    match tree {
        UseTree::Path(path) => {
            let name = path.ident.to_string();
            let mut below = leaves(&path.tree);
            for leaf in &mut below {
                if leaf.name.as_deref() == Some("self") {
                    *leaf = Leaf { path: Vec::new(), name: Some(name.clone()) };
                }
                leaf.path.insert(0, name.clone());
            }
            below
        }
        UseTree::Name(name) => vec![leaf(&name.ident, &name.ident)],
        UseTree::Rename(rename) => vec![leaf(&rename.ident, &rename.rename)],
        UseTree::Glob(_) => vec![Leaf { path: Vec::new(), name: None }],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

fn module_file(dir: &Path) -> Result<PathBuf> {
    let candidates = [dir.with_extension("rs"), dir.join("mod.rs")];
    match candidates.iter().find(|candidate| candidate.is_file()) {
        Some(found) => Ok(found.clone()),
        None => bail!("there is no file for the module {}", dir.display()),
    }
}
