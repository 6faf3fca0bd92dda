/* SPDX-License-Identifier: MIT
 *
 * image_cmd: `sandboxd image build|ls`, the part of sandboxd that is run by hand. argv[0] is
 * "image". Returns the exit status; prints errors itself.
 */
#pragma once

int image_cmd(int argc, char **argv);
