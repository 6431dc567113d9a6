//! One switch of stacks, by what is saved: the callee-saved registers (ours), control words of the FPU as well, the FPU
//! and SSE state (FXSAVE), the whole extended state by the hardware (XSAVE, XSAVEOPT). docs/design/001-context-switch.md.
//!
//! Every variant pushes the same registers and differs only in what it does beside that. Two stacks hand control to and
//! fro; the time is of one switch, half of a round.

mod measure;

use gort_core::context::{self, Context};
use measure::{header, measure};

const ROUNDS: u64 = 20_000;
const STACK_WORDS: usize = 8192;

/// One way of switching: how to start the second stack, and how to go from one to the other.
trait Variant {
    const NAME: &'static str;
    /// # Safety
    /// `top` is the top of an unused stack.
    unsafe fn start(pair: &mut Pair, top: usize);
    /// # Safety
    /// `to` was saved by this variant and is resumed once.
    unsafe fn switch(save: *mut Context, to: *const Context);
}

#[derive(Default)]
struct Pair {
    main: Context,
    other: Context,
}

/// What the second stack does: it gives control back, for ever.
///
/// # Safety
/// Runs on the second stack of the pair at `pair`, which outlives it.
unsafe extern "C-unwind" fn echo<V: Variant>(pair: usize) -> ! {
    let pair: *mut Pair = std::ptr::with_exposed_provenance_mut(pair);
    loop {
        // SAFETY: the pair is alive; its contexts are resumed in turns.
        unsafe { V::switch(&raw mut (*pair).other, &raw const (*pair).main) };
    }
}

fn bench<V: Variant>() {
    let mut stack = vec![0u128; STACK_WORDS];
    let top = stack.as_mut_ptr().expose_provenance() + STACK_WORDS * 16;
    let mut pair = Box::<Pair>::default();
    // SAFETY: stack and pair outlive the last switch; the second stack holds nothing to drop.
    unsafe {
        V::start(&mut pair, top);
        let pair: *mut Pair = &raw mut *pair;
        measure(V::NAME, ROUNDS * 2, || {
            for _ in 0..ROUNDS {
                V::switch(&raw mut (*pair).main, &raw const (*pair).other);
            }
        });
    }
}

struct CalleeSaved;

impl Variant for CalleeSaved {
    const NAME: &'static str = "callee-saved registers (gort)";
    unsafe fn start(pair: &mut Pair, top: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            pair.other = context::init(top, echo::<Self>);
            let at: *mut Pair = pair;
            context::switch(&raw mut (*at).main, &raw const (*at).other, at.expose_provenance());
        }
    }
    #[inline(always)]
    unsafe fn switch(save: *mut Context, to: *const Context) {
        // SAFETY: the caller's promise.
        unsafe { context::switch(save, to, 0) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Context, Pair, Variant, echo};
    use std::arch::global_asm;

    /// `start(save, top, entry, value)` and `switch(save, to)` around what the variant saves and restores.
    macro_rules! variant {
        ($type:ident, $name:literal, $start:ident, $switch:ident, [$($save:literal),*], [$($restore:literal),*]) => {
            global_asm!(
                concat!(".globl ", stringify!($start)), concat!(".hidden ", stringify!($start)),
                concat!(".globl ", stringify!($switch)), concat!(".hidden ", stringify!($switch)),
                ".p2align 6",
                concat!(stringify!($start), ":"),
                "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15", "mov rbp, rsp",
                "mov r8, rdx", "mov r9, rcx",
                $($save,)*
                "mov [rdi], rsp", "mov rsp, rsi", "xor ebp, ebp", "mov rdi, r9", "call r8", "ud2",
                ".p2align 6",
                concat!(stringify!($switch), ":"),
                "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15", "mov rbp, rsp",
                $($save,)*
                "mov [rdi], rsp", "mov rsp, [rsi]",
                $($restore,)*
                "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp", "pop rcx", "jmp rcx",
            );
            unsafe extern "C-unwind" {
                fn $start(save: *mut Context, top: usize, entry: unsafe extern "C-unwind" fn(usize) -> !, value: usize);
                fn $switch(save: *mut Context, to: *const Context);
            }
            pub(super) struct $type;
            impl Variant for $type {
                const NAME: &'static str = $name;
                unsafe fn start(pair: &mut Pair, top: usize) {
                    let at: *mut Pair = pair;
                    // SAFETY: the caller's promise.
                    unsafe { $start(&raw mut (*at).main, top, echo::<Self>, at.expose_provenance()) };
                }
                #[inline(always)]
                unsafe fn switch(save: *mut Context, to: *const Context) {
                    // SAFETY: the caller's promise.
                    unsafe { $switch(save, to) };
                }
            }
        };
    }

    variant!(
        ControlWords,
        "and MXCSR, x87 control word",
        bench_start_words,
        bench_switch_words,
        ["sub rsp, 8", "stmxcsr [rsp]", "fnstcw [rsp + 4]"],
        ["ldmxcsr [rsp]", "fldcw [rsp + 4]", "add rsp, 8"]
    );
    variant!(
        FxSave,
        "and all of x87 and SSE (FXSAVE)",
        bench_start_fx,
        bench_switch_fx,
        ["sub rsp, 640", "and rsp, -64", "mov [rsp + 512], rbp", "fxsave64 [rsp]"],
        ["fxrstor64 [rsp]", "mov rsp, [rsp + 512]"]
    );
    variant!(
        XSave,
        "and the whole state (XSAVE)",
        bench_start_xsave,
        bench_switch_xsave,
        [
            "sub rsp, 4224",
            "and rsp, -64",
            "mov [rsp + 4096], rbp",
            "xor eax, eax",
            "mov [rsp + 512], rax",
            "mov [rsp + 520], rax",
            "mov [rsp + 528], rax",
            "mov [rsp + 536], rax",
            "mov [rsp + 544], rax",
            "mov [rsp + 552], rax",
            "mov [rsp + 560], rax",
            "mov [rsp + 568], rax",
            "mov eax, -1",
            "mov edx, -1",
            "xsave64 [rsp]"
        ],
        ["mov eax, -1", "mov edx, -1", "xrstor64 [rsp]", "mov rsp, [rsp + 4096]"]
    );
    variant!(
        XSaveOpt,
        "and the whole state (XSAVEOPT)",
        bench_start_xsaveopt,
        bench_switch_xsaveopt,
        [
            "sub rsp, 4224",
            "and rsp, -64",
            "mov [rsp + 4096], rbp",
            "xor eax, eax",
            "mov [rsp + 512], rax",
            "mov [rsp + 520], rax",
            "mov [rsp + 528], rax",
            "mov [rsp + 536], rax",
            "mov [rsp + 544], rax",
            "mov [rsp + 552], rax",
            "mov [rsp + 560], rax",
            "mov [rsp + 568], rax",
            "mov eax, -1",
            "mov edx, -1",
            "xsaveopt64 [rsp]"
        ],
        ["mov eax, -1", "mov edx, -1", "xrstor64 [rsp]", "mov rsp, [rsp + 4096]"]
    );
}

fn main() {
    header("switch");
    bench::<CalleeSaved>();
    #[cfg(target_arch = "x86_64")]
    {
        bench::<x86_64::ControlWords>();
        bench::<x86_64::FxSave>();
        if std::is_x86_feature_detected!("xsave") {
            bench::<x86_64::XSave>();
        }
        if std::is_x86_feature_detected!("xsaveopt") {
            bench::<x86_64::XSaveOpt>();
        }
    }
}
