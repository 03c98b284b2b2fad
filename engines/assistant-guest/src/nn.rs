//! WASI-NN as WasmEdge has it: models by name, texts in, tokens out. The functions and numbers are those of the
//! wasmedge-wasi-nn crate; docs/wasm.md has what our plug-in adds.

/// The errors that are more than failures.
pub const INVALID_ARGUMENT: u32 = 1;
pub const TOO_LARGE: u32 = 7;
pub const END_OF_SEQUENCE: u32 = 100;
pub const CONTEXT_FULL: u32 = 101;
pub const PROMPT_TOO_LONG: u32 = 102;

mod host {
    #[link(wasm_import_module = "wasi_ephemeral_nn")]
    unsafe extern "C" {
        pub fn load_by_name_with_config(name: *const u8, name_len: usize, config: *const u8, config_len: usize, graph: *mut u32) -> u32;
        pub fn init_execution_context(graph: u32, context: *mut u32) -> u32;
        pub fn set_input(context: u32, index: u32, tensor: *const Tensor) -> u32;
        pub fn compute(context: u32) -> u32;
        pub fn compute_single(context: u32) -> u32;
        pub fn get_output(context: u32, index: u32, buffer: *mut u8, size: usize, written: *mut usize) -> u32;
        pub fn get_output_single(context: u32, index: u32, buffer: *mut u8, size: usize, written: *mut usize) -> u32;
        pub fn fini_single(context: u32) -> u32;
    }

    #[repr(C)]
    pub struct Tensor {
        pub dimensions: *const u32,
        pub dimensions_len: usize,
        pub kind: u32,
        pub data: *const u8,
        pub data_len: usize,
    }
}

const U8: u32 = 2;

fn done(errno: u32) -> Result<(), u32> {
    if errno == 0 { Ok(()) } else { Err(errno) }
}

/// A loaded model.
#[derive(Clone, Copy)]
pub struct Graph(u32);

impl Graph {
    /// Loads the model of an --nn-preload with these settings, JSON.
    pub fn load(name: &str, settings: &str) -> Result<Self, u32> {
        let mut graph = 0;
        done(unsafe { host::load_by_name_with_config(name.as_ptr(), name.len(), settings.as_ptr(), settings.len(), &mut graph) })?;
        Ok(Graph(graph))
    }

    /// Makes room for one prompt and its answer.
    pub fn context(self) -> Result<Context, u32> {
        let mut handle = 0;
        done(unsafe { host::init_execution_context(self.0, &mut handle) })?;
        Ok(Context { handle, buffer: vec![0; 4096] })
    }
}

/// A prompt and what the model makes of it.
pub struct Context {
    handle: u32,
    buffer: Vec<u8>, // for outputs, grown as needed
}

type Output = unsafe extern "C" fn(u32, u32, *mut u8, usize, *mut usize) -> u32;

impl Context {
    fn set(&mut self, index: u32, data: &[u8]) -> Result<(), u32> {
        let dimensions = [1u32];
        let tensor = host::Tensor { dimensions: dimensions.as_ptr(), dimensions_len: 1, kind: U8, data: data.as_ptr(), data_len: data.len() };
        done(unsafe { host::set_input(self.handle, index, &tensor) })
    }

    pub fn set_prompt(&mut self, prompt: &str) -> Result<(), u32> {
        self.set(0, prompt.as_bytes())
    }

    pub fn set_options(&mut self, json: &str) -> Result<(), u32> {
        self.set(1, json.as_bytes())
    }

    pub fn compute(&mut self) -> Result<(), u32> {
        done(unsafe { host::compute(self.handle) })
    }

    /// Makes one more token. An error may be the end.
    pub fn next(&mut self) -> Result<(), u32> {
        done(unsafe { host::compute_single(self.handle) })
    }

    /// Ends a generation, wherever it is.
    pub fn finish(&mut self) {
        unsafe { host::fini_single(self.handle) };
    }

    fn read(&mut self, from: Output, index: u32) -> Result<&[u8], u32> {
        loop {
            let mut written = 0;
            let (buffer, size) = (self.buffer.as_mut_ptr(), self.buffer.len());
            match unsafe { from(self.handle, index, buffer, size, &mut written) } {
                0 => return Ok(&self.buffer[..written.min(size)]),
                TOO_LARGE if written > size => self.buffer.resize(written, 0),
                errno => return Err(errno),
            }
        }
    }

    /// The text of the last token, in bytes: another plug-in than ours may cut characters.
    pub fn piece(&mut self) -> Result<&[u8], u32> {
        self.read(host::get_output_single, 0)
    }

    /// What our plug-in tells of the last token: JSON, see docs/wasm.md.
    pub fn piece_details(&mut self) -> Result<&[u8], u32> {
        self.read(host::get_output_single, 2)
    }

    /// All that was made.
    pub fn output(&mut self) -> Result<&[u8], u32> {
        self.read(host::get_output, 0)
    }

    /// What is known of the prompt and the answer: JSON.
    pub fn known(&mut self) -> Result<&[u8], u32> {
        self.read(host::get_output, 1)
    }
}
