"""llama-server on top of the Python package xllamacpp, whose folder lies beside this file.

llama.cpp's own parser, which the package exports, reads the flags into the package's
own settings object. The two numbers that this takes belong to the pinned version.
"""

import ctypes
import os
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "site"))
sys.dont_write_bytecode = True

import xllamacpp  # noqa: E402

PARAMS_OFFSET = 16  # of the C++ common_params in the Python object
EXAMPLE_SERVER = 12  # LLAMA_EXAMPLE_SERVER
PARSE = "_Z19common_params_parseiPPcR13common_params13llama_examplePFviS0_E"


def parse(arguments):
    params = xllamacpp.CommonParams()
    function = getattr(ctypes.CDLL(xllamacpp.xllamacpp.__file__), PARSE)
    function.restype = ctypes.c_bool
    function.argtypes = [
        ctypes.c_int, ctypes.POINTER(ctypes.c_char_p), ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p,
    ]
    argv = [b"llama-server", *map(os.fsencode, arguments)]
    array = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    if not function(len(argv), array, id(params) + PARAMS_OFFSET, EXAMPLE_SERVER, None):
        sys.exit(1)
    return params


def main():
    if "--version" in sys.argv[1:]:
        print("xllamacpp", xllamacpp.__version__)
        return
    end = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, end)  # before the server's threads inherit the mask
    server = xllamacpp.Server(parse(sys.argv[1:]))
    print("listening on", server.listening_address, flush=True)
    signal.sigwait(end)
    os._exit(0)  # the server's threads would hold an ordinary exit up


main()
