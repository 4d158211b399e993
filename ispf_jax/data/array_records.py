"""A program: writes the records of an array_record file to its output, framed as in a TFRecord file.

    python array_records.py FILE BYTES

The library believes what a file declares and ends its process where memory is short. So it runs here, in a process that
may take so many bytes of memory, and ten minutes.
"""

import resource
import struct
import sys


def main(file: str, most: int):
    for limit, value in ((resource.RLIMIT_AS, most), (resource.RLIMIT_CPU, 600), (resource.RLIMIT_CORE, 0)):
        resource.setrlimit(limit, (value, value))
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(file, "readahead_buffer_size:0")
    for i in range(reader.num_records()):
        for record in reader.read([i]):
            sys.stdout.buffer.write(struct.pack("<QI", len(record), 0) + record + bytes(4))
    reader.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
