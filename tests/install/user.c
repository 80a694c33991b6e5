/*
 * user.c - a stranger's program: the installed header, library and version agree.
 */
#include <scree.h>

#include <stdio.h>
#include <string.h>

int
main(void)
{
    char version[32];

    (void)snprintf(version, sizeof version, "%d.%d.%d", SCREE_VERSION_MAJOR, SCREE_VERSION_MINOR,
                   SCREE_VERSION_PATCH);
    return strcmp(version, scree_version_string()) == 0 && scree_env_posix() != NULL ? 0 : 1;
}
