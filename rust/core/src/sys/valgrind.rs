//! What Valgrind has to be told. It takes a jump of the stack pointer into memory that it does not know as a stack for one long
//! push or pop, and from there on for undefined what it had seen written: a program with goroutines would be nothing but
//! errors. A request is a sequence of instructions that do nothing on a CPU (valgrind.h), so that the wheel as it ships can be
//! looked at. x86-64; elsewhere nothing is told.

/// `VG_USERREQ__STACK_REGISTER` of valgrind.h.
#[cfg(all(target_arch = "x86_64", not(model)))]
const STACK_REGISTER: usize = 0x1501;
/// `VG_USERREQ__MAKE_MEM_DEFINED` of memcheck.h.
#[cfg(all(target_arch = "x86_64", not(model)))]
const MAKE_MEM_DEFINED: usize = 0x4d43_0002;

/// The bytes `[start, end)` are a stack from here on.
#[inline]
pub fn note_stack(start: usize, end: usize) {
    #[cfg(all(target_arch = "x86_64", not(model)))]
    request([STACK_REGISTER, start, end - 1, 0, 0, 0]);
    #[cfg(not(all(target_arch = "x86_64", not(model))))]
    let _ = (start, end);
}

/// Whatever is in `[start, end)` may be looked at.
#[inline]
pub fn note_defined(start: usize, end: usize) {
    #[cfg(all(target_arch = "x86_64", not(model)))]
    request([MAKE_MEM_DEFINED, start, end - start, 0, 0, 0]);
    #[cfg(not(all(target_arch = "x86_64", not(model))))]
    let _ = (start, end);
}

#[cfg(all(target_arch = "x86_64", not(model)))]
#[inline]
fn request(request: [usize; 6]) {
    // SAFETY: four rotations by 128 bits in all and an exchange of a register with itself change nothing but flags; under
    // Valgrind the result comes into rdx, and the request is read.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0usize => _,
            options(nostack),
        );
    }
}
